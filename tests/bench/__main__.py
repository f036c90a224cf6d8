"""``make bench``: what the worker does beside a floor that does nothing but read, copy and write, on the same servers, in turns.

Starts servers with production settings, fills a topic, and lets each contender catch up in each round with the settings it has by
default.  Every row, message and verdict is compared with a brute force.  Prints medians; writes `bench.json` and `bench.svg`.  Fails
where anything is wrong.  ``ARGS=latency`` measures latency at a given rate instead.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from processor.embedded import Stack
from tests.bench import growth, latency, memory
from tests.bench.results import Round, table, write
from tests.bench.runs import AT_LEAST_ONCE, CONTENDERS, EXACTLY_ONCE, Bench
from tests.bench.traffic import Sent, traffic

AGO_MS = 60_000
"""Event time ends so long before now."""


def main() -> int:
    """The exit code: 1 where anything was wrong or missing."""
    others = {"growth": growth.main, "memory": memory.main}
    if len(sys.argv) > 1 and sys.argv[1] in others:
        return others[sys.argv[1]](sys.argv[2:])
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("throughput", "latency"), default="throughput")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second, for latency")
    parser.add_argument("--seconds", type=int, default=60, help="measured, for latency")
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Stack(folder / "stack", jvm=(), heap="1g") as stack:
            measure = _latency if asked.what == "latency" else _throughput
            return asyncio.run(measure(stack, folder, asked))


async def _throughput(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    bench = Bench(stack, folder, _traffic(asked.events))
    await bench.fill()
    rounds: list[Round] = []
    for number in range(asked.rounds):
        done = {}
        for contender in CONTENDERS:
            done[contender.name] = await bench.run(contender)
            print(f"round {number + 1}: {done[contender.name]}", file=sys.stderr)
        rounds.append(done)
    write(asked.out, _machine(), rounds)
    print(f"{_machine()}, which all servers, the contender and the measurement share;", end=" ")
    print(f"{asked.events:,} messages, medians of {asked.rounds} rounds.\n\n{table(rounds)}")
    return int(any(result.wrong for done in rounds for result in done.values()))


async def _latency(stack: Stack, folder: Path, asked: argparse.Namespace) -> int:
    seconds = asked.seconds + latency.WARM_S
    sent = list({one.id: one for one in _traffic(2 * seconds * asked.rate)}.values())
    sent, bench, missing = sent[: seconds * asked.rate], Bench(stack, folder, ()), 0
    for contender in (EXACTLY_ONCE, AT_LEAST_ONCE):
        took = await latency.run(bench, contender, sent, asked.rate)
        missing += took.missing
        shown = ", ".join(f"{name} {ms:.0f} ms" for name, ms in took.milliseconds.items())
        print(f"{contender.name} at {asked.rate:,} events/s: {shown}; {took.missing} missing")
    return int(missing > 0)


def _traffic(events: int) -> Sequence[Sent]:
    return traffic(events, time.time_ns() // 1_000_000 - events - AGO_MS)


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
