"""The worker of the product, whole, which can be struck at named points: ``python -m tests.faults.worker``.

Its composition is the product's; only the classes of two parts and of the sinks are their pointed heirs.  `MUTANT` names one of
`tests.faults.mutants` to show that the checker would find it.  `SKEW_S` is how far its wall clock is ahead.
Times are shortened, so that a fault shows within seconds; `TUNING=product` keeps the product's.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping

from processor import composition, telemetry
from processor.failures import StartRefused
from processor.io.kafka import DEFAULT_TUNING, Partition
from processor.io.kafka_group import Group
from processor.io.kafka_sink import Outlet
from processor.lane_ports import Sink
from processor.lanes import Lane
from processor.settings import Settings
from processor.worker import serve
from tests.faults.mutants import MUTANTS
from tests.faults.points import (
    PointedEvents,
    PointedWindows,
    Points,
    point_merges,
    pointed_sink,
)
from tests.faulty_worker import QUICK


def main(environment: Mapping[str, str]) -> int:
    """The exit code, as the command's."""
    telemetry.configure_logging("json")
    _skew(float(environment.get("SKEW_S", "0")))
    points = Points(environment)
    PointedEvents.points = PointedWindows.points = points
    point_merges(points, int(environment.get("MOVE_ROWS", "0")))

    def sinks(outlet: Outlet, partition: Partition, group: Group[Lane]) -> Sink:
        return pointed_sink(outlet, partition, group, points)

    setattr(composition, "Events", PointedEvents)  # noqa: B010 - for this process alone
    setattr(composition, "Windows", PointedWindows)  # noqa: B010
    mutant = MUTANTS.get(environment.get("MUTANT", ""))
    tuning = DEFAULT_TUNING if environment.get("TUNING") == "product" else QUICK
    try:
        return asyncio.run(
            serve(
                Settings.load(),
                composition.composed,
                tuning,
                mutant(sinks, points) if mutant else sinks,
            )
        )
    except StartRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 2


def _skew(seconds: float) -> None:
    """The wall clock of this process alone is so far ahead; its monotonic one goes as it goes."""
    read: Callable[[], int] = time.time_ns
    ahead = int(seconds * 1e9)
    setattr(time, "time_ns", lambda: read() + ahead)  # noqa: B010 - for this process alone
    setattr(time, "time", lambda: (read() + ahead) / 1e9)  # noqa: B010


if __name__ == "__main__":
    sys.exit(main(os.environ))
