"""``make bench ARGS=bounds``: between the floor and the worker, step by step, what the contract alone takes (bounded.py)."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from processor import bench
from processor.bench.contenders import EXACTLY_ONCE, FLOOR, Contender, Kind
from processor.bench.program import Program
from processor.bench.results import failed, table
from processor.bench.runs import Bench
from processor.bench.site import Site, execute
from tests.bench.bounded import LEVELS

PROGRAM = sys.executable, "-m", "tests.bench.bounded"
BOUNDS = [Contender(level, Kind.FLOOR, PROGRAM, {"LEVEL": level}) for level in LEVELS]


def main(arguments: Sequence[str]) -> int:
    """Prints a table; the exit code: 1 where a row, message or verdict was wrong."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="bounds ..."', description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    with bench.servers() as (stack, folder):
        steps = Bounds(stack, folder, bench.sent(asked.events), "bounds")
        contenders = FLOOR, *BOUNDS, EXACTLY_ONCE
        done = asyncio.run(steps.rounds(contenders, asked.rounds, bench.WARM_UP))
    print(f"{bench.about(asked.events, asked.rounds)}\n\n{table(done)}")
    return int(failed(done))


class Bounds(Bench):
    """With a place for those of `BOUNDS`."""

    @asynccontextmanager
    async def prepared(
        self, contender: Contender, raw: str | None = None
    ) -> AsyncIterator[tuple[Site, Program]]:
        """A bound has the processor's tables, and nothing that counts in them."""
        if contender not in BOUNDS:
            async with super().prepared(contender, raw) as found:
                yield found
            return
        async with super().prepared(replace(contender, kind=Kind.OWN), raw) as (site, program):
            await execute(site.postgres, "ALTER TABLE events DISABLE TRIGGER ALL")
            yield site, program
