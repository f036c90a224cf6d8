"""``make bench``: what ``processor bench`` measures, kept as `bench.json` and `bench.svg`; ``ARGS=latency`` measures latency at a given rate."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from processor import bench
from processor.bench.contenders import FLOOR, OWN, Contender
from processor.bench.results import failed, table, write
from processor.bench.runs import Bench
from processor.embedded import Stack
from tests.bench import latency


def main() -> int:
    """The exit code: 1 where anything was wrong or missing."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("throughput", "latency"), default="throughput")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second, for latency")
    parser.add_argument("--seconds", type=int, default=60, help="measured, for latency")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    asked = parser.parse_args()
    measure = _latency if asked.what == "latency" else _throughput
    with bench.servers() as (stack, folder):
        return measure(stack, folder, asked)


def _throughput(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    backlog = Bench(stack, folder, bench.sent(asked.events))
    rounds = asyncio.run(backlog.rounds((FLOOR, *OWN), asked.rounds))
    about = bench.about(asked.events, asked.rounds)
    write(asked.out, "bench", about, rounds)
    print(f"{about}\n\n{table(rounds)}")
    return int(failed(rounds))


def _latency(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    return asyncio.run(_latencies(Bench(stack, folder, ()), OWN, asked))


async def _latencies(
    site: Bench, contenders: Sequence[Contender], asked: argparse.Namespace
) -> int:
    count, missing = (asked.seconds + latency.WARM_S) * asked.rate, 0
    sent = [*{one.id: one for one in bench.sent(2 * count)}.values()][:count]
    for contender in contenders:
        took = await latency.run(site, contender, sent, asked.rate)
        missing += took.missing
        shown = ", ".join(f"{name} {ms:.0f} ms" for name, ms in took.milliseconds.items())
        print(f"{contender.name} at {asked.rate:,} events/s: {shown}; {took.missing} missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
