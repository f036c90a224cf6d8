"""``make bench ARGS=growth``: how the cost of an event grows with partitions, stored events, filters, windows and the like.

One thing is varied in each series, with the rest as in `make bench`.  Prints a table for each, with what must be and what is, and
writes `growth.json` and `growth.svg`.  Fails where anything is wrong or grows faster than it must.  ``--series NAME`` picks one.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from processor.embedded import Stack
from tests.bench.growth_chart import chart
from tests.bench.growth_results import faults, read, table, write
from tests.bench.growth_runs import Growth, Measured
from tests.bench.growth_series import SERIES, Series


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="growth ..."', description=__doc__)
    names = [series.name for series in SERIES]
    parser.add_argument("--series", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--most-stored", type=int, default=10_000_000, help="points beyond it are left out"
    )
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    asked = parser.parse_args(arguments)
    chosen = [series for series in SERIES if series.name in asked.series]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Stack.under_load(folder / "stack") as stack:
            results = asyncio.run(_measured(Growth(stack, folder), chosen, asked.most_stored))
    write(asked.out, f"{os.cpu_count()} cores, {platform.machine()}", results)
    about = {series.name: series.about for series in SERIES}
    (asked.out / "growth.svg").write_text(chart(read(asked.out), about))
    for series, points in results.values():
        print(table(series, points))
    return int(any(faults(series, points) for series, points in results.values()))


async def _measured(
    growth: Growth, chosen: Sequence[Series], most_stored: int
) -> dict[str, tuple[Series, Sequence[Measured]]]:
    """Points in the order of what is stored before, so that it is stored once."""
    found: dict[str, list[Measured]] = {series.name: [] for series in chosen}
    due = [(series, point) for series in chosen for point in series.points]
    await growth.warm()
    for series, point in sorted(due, key=lambda one: (one[1].stored, not one[1].lost)):
        if point.stored <= most_stored:
            done = await growth.run(point)
            print(f"{series.name} {point.label}: {done}", file=sys.stderr)
            found[series.name].append(done)
    return {series.name: (series, found[series.name]) for series in chosen}
