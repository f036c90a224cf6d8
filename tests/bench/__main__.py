"""``make bench``: what ``processor bench`` measures, and rivals beside it.

All of a comparison take turns over the same messages, and every row, message and verdict is compared with a brute force; what a rival
does wrong is told, what the floor or the worker does wrong fails.  Writes a JSON and an SVG file for each.  ``latency`` measures at a
given rate instead.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from processor import bench
from processor.bench.contenders import OWN, Contender
from processor.bench.results import beside, failed, table, write
from processor.bench.runs import Bench, Round
from processor.embedded import Stack
from processor.failures import Failure
from tests.bench import bounds, growth, latency, memory, steps
from tests.bench.compared import RIVALS, Comparison, comparisons, kept
from tests.bench.rivals import kstreams


def main() -> int:
    """The exit code: 1 where anything was wrong or missing, 2 where it cannot be measured."""
    others = {
        "bounds": bounds.main,
        "growth": growth.main,
        "memory": memory.main,
        "steps": steps.main,
    }
    if len(sys.argv) > 1 and sys.argv[1] in others:
        return others[sys.argv[1]](sys.argv[2:])
    asked = _asked(sys.argv[1:])
    measure = _latency if asked.what == "latency" else _throughput
    try:
        with bench.servers() as (stack, folder):
            return measure(stack, folder, asked)
    except Failure as failure:
        print(f"make bench: {failure}", file=sys.stderr)
        return 2


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("throughput", "latency"), default="throughput")
    rivals = f"rivals, with commas between them: {', '.join(RIVALS)}"
    parser.add_argument("--with", dest="rivals", type=_names, default=[], help=rivals)
    parser.add_argument("--only", type=_names, default=[], help="the floor and these contenders")
    parser.add_argument("--events", type=int, help="300,000; with a rival what it needs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second, for latency")
    parser.add_argument("--seconds", type=int, default=60, help="measured, for latency")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    asked = parser.parse_args(arguments)
    if unknown := {*asked.rivals} - RIVALS.keys():
        parser.error(f"no rival is called {' or '.join(sorted(unknown))}")
    return asked


def _names(text: str) -> list[str]:
    return text.split(",")


def _throughput(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    wrong = 0
    for comparison in comparisons(asked.rivals, asked.events, asked.only, folder):
        backlog = Bench(stack, folder, bench.sent(comparison.events), comparison.name)
        rounds = asyncio.run(backlog.rounds(comparison.contenders, asked.rounds, bench.WARM_UP))
        wrong |= _told(comparison, rounds, asked)
    return wrong


def _told(comparison: Comparison, rounds: Sequence[Round], asked: argparse.Namespace) -> int:
    """Prints its tables; 1 where anything was wrong."""
    about = bench.about(comparison.events, asked.rounds)
    write(asked.out, comparison.name, about, rounds)
    print(f"{about}\n\n{table(rounds)}\n")
    if asked.rivals:
        print(f"{beside(rounds)}\n")
    return int(failed(rounds))


def _latency(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    exactly_once = kstreams.contenders(folder)[:1] if "kstreams" in asked.rivals else ()
    contenders = kept((*OWN, *map(kstreams.quick, exactly_once)), asked.only)
    return asyncio.run(_latencies(Bench(stack, folder, (), "latency"), contenders, asked))


async def _latencies(
    site: Bench, contenders: Sequence[Contender], asked: argparse.Namespace
) -> int:
    count, missing = (asked.seconds + latency.WARM_S) * asked.rate, 0
    sent = [*{one.id: one for one in bench.sent(2 * count)}.values()][:count]
    for contender in bench.WARM_UP:  # counts for nothing: servers get warm
        await latency.run(site, contender, sent, asked.rate)
    for contender in contenders:
        took = await latency.run(site, contender, sent, asked.rate)
        missing += took.missing
        shown = ", ".join(f"{name} {ms:.0f} ms" for name, ms in took.milliseconds.items())
        print(f"{contender.name} at {asked.rate:,} events/s: {shown}; {took.missing} missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
