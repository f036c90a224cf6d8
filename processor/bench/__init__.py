"""`processor bench`: what this machine does with a worker, beside a floor that only reads, copies and writes.

Servers of its own, with production settings, whatever the environment names: the CPU of each part is taken from its processes.  All
take turns over the same messages; then every row, message and verdict is compared with a brute force.
"""

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from processor.bench.contenders import EXACTLY_ONCE, FLOOR, OWN
from processor.bench.results import failed, table
from processor.bench.runs import Bench
from processor.bench.traffic import Sent, traffic
from processor.embedded import Stack
from processor.io.kafka import quietly

WARM_UP = [EXACTLY_ONCE] * 2
"""After so many runs a broker's compiler has most of its work behind it."""
AGO_MS = 60_000
"""Event time ends so long before now."""


def main(events: int, rounds: int) -> int:
    """Prints the table; the exit code: 1 where a row, message or verdict was wrong.  Raises `Failure`."""
    with servers() as (stack, folder):
        bench = Bench(stack, folder, sent(events))
        done = asyncio.run(bench.rounds((FLOOR, *OWN), rounds, WARM_UP))
    print(f"{about(events, rounds)}\n\n{table(done)}")
    return int(failed(done))


@contextmanager
def servers() -> Iterator[tuple[Stack, Path]]:
    """With the settings of a long load, and a folder beside their data; both go again."""
    with tempfile.TemporaryDirectory(prefix="processor-bench-") as name:
        folder = Path(name)
        with quietly(), Stack.under_load(folder / "stack", {}) as stack:
            yield stack, folder


def sent(events: int) -> Sequence[Sent]:
    """So many messages whose event time ends a minute ago."""
    return traffic(events, time.time_ns() // 1_000_000 - events - AGO_MS)


def about(events: int, rounds: int) -> str:
    """What a table was made of."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    shared = "which all servers, the contender and the measurement share"
    counted = f"medians of {rounds} rounds on servers that are warm"
    return f"{machine}, {shared}; {events:,} messages, {counted}."
