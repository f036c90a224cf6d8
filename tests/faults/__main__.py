"""``make faults``: every row of the matrix on real servers, and the table that the README shows."""

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tests.faults.matrix import EVENTS, Result, Row, played, rows
from tests.faults.servers import FaultStack

HEAD = "| fault | seed | events | the fault bit | invariants | recovery |\n| --- | --- | --- | --- | --- | --- |"


def main() -> int:
    """The exit code: 0 where every row ran and holds; rows that may be missing here are excepted."""
    asked = _arguments()
    wanted = [row for row in rows() if asked.only in row.name]
    if not wanted:
        sys.stderr.write(f"no row is named like {asked.only!r}\n")
        return 2
    # The clients of the load say again and again that Kafka is away, as it should be.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    sys.stdout.write(f"{HEAD}\n")
    results = asyncio.run(_all(wanted, asked.seed, asked.events))
    failed = [r for r in results if not r.good and not (r.not_run and r.row.optional)]
    total = sum(result.took_s for result in results)
    sys.stdout.write(
        f"\n{len(results) - len(failed)} of {len(results)} rows hold, {total / 60:.0f} min\n"
    )
    return 1 if failed else 0


def _line(result: Result) -> str:
    """In Markdown."""
    bitten = f"{result.bitten.times:g} {result.bitten.what}" if result.bitten else "no"
    verdict = result.verdict.replace("|", "\\|").replace("\n", " ")
    return (
        f"| {result.row.name} | {result.seed} | {result.events:,} | {bitten} | {verdict}"
        f" | {result.recovery_s:.1f} s |"
    )


async def _all(wanted: list[Row], seed: int, events: int) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="faults-servers-") as folder:
        stack = FaultStack(Path(folder))
        await asyncio.to_thread(stack.start)
        try:
            found = []
            for number, row in enumerate(wanted, 1):
                sys.stderr.write(f"{number}/{len(wanted)} {row.name}\n")
                found.append(await played(row, stack, seed + number, events))
                sys.stdout.write(f"{_line(found[-1])}\n")
                sys.stdout.flush()  # whoever ends it half-way keeps what was found
            return found
        finally:
            await asyncio.to_thread(stack.stop)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--seed", type=int, default=1, help="of the first row")
    parser.add_argument("--events", type=int, default=EVENTS, help="of each row, at least")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
