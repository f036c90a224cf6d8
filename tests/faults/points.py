"""Where a worker may be struck: named points between any two of its steps.

A test writes ``POINT ACTION`` into the file ``armed`` of a folder that its workers share.  The first worker to come by, once it
has processed some batches, takes the file away, leaves its process id in ``struck`` and does it: a signal to itself, a sleep, or,
as ``HOLD:SECONDS``, a sleep that no cancellation ends.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from processor.io import merges
from processor.io.kafka_batches import Packed
from processor.io.kafka_group import Group
from processor.io.kafka_sink import Idempotent, Outlet, Transactional
from processor.io.merges import Merged
from processor.io.postgres import Postgres
from processor.io.store import Events
from processor.io.windows import Windows
from processor.lane_ports import Sink
from processor.lanes import Lane
from processor.ports import Answer, Reading
from processor.pure.types import Case, Facts, MergeCommand, Ruling

PROCESSING = ("before_read", "after_read", "after_record", "mid_write", "after_write")
PUBLISHING = ("after_begin", "mid_sends", "after_sends", "after_offsets", "after_commit")
MERGING = ("after_merge", "mid_move")
STARTING = ("before_start", "after_start")
BATCHES_BEFORE = 3


class Points:
    """Those of one process; passing one costs a look for a file."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = Path(environment["FAULT_FOLDER"])
        self._batches = 0

    async def at(self, point: str) -> None:
        """To be awaited wherever a worker may be struck."""
        self._batches += point == "before_read"
        if self._batches < BATCHES_BEFORE and point not in STARTING:
            return
        armed = self._folder / "armed"
        if not armed.exists():
            return
        with suppress(OSError):
            wanted, action = armed.read_text().split()
            if wanted == point:
                armed.rename(self._folder / f"taken.{os.getpid()}")  # one worker alone can
                await self._strike(action)

    async def _strike(self, action: str) -> None:
        told = self._folder / f"told.{os.getpid()}"
        told.write_text(str(os.getpid()))
        told.replace(self._folder / "struck")
        if action.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[action])
        elif action.startswith("HOLD:"):
            await _held(float(action.removeprefix("HOLD:")))
        else:
            await asyncio.sleep(float(action))


async def _held(seconds: float) -> None:
    """As code that swallows its cancellation."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(left)


class PointedEvents(Events):
    """Points around the commit of a batch."""

    points: Points

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """As it is, and then the point after the commit in Postgres."""
        answer = await super().record(rulings, rules)
        await self.points.at("after_record")
        return answer


class PointedWindows(Windows):
    """Points around the calls of Redis, and in the middle of a write."""

    points: Points

    async def read(self, cases: Sequence[Case]) -> Reading:
        """As it is, between two points."""
        await self.points.at("before_read")
        reading = await super().read(cases)
        await self.points.at("after_read")
        return reading

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """One half, a point, and all of it."""
        half = len(facts) // 2
        await super().write(Reading(reading.cases[:half], ()), facts[:half])
        await self.points.at("mid_write")
        await super().write(reading, facts)
        await self.points.at("after_write")


def point_merges(points: Points, rows: int) -> None:
    """Points behind a merge's commit and behind a chunk of a move, which looks at so many rows (0: as many as the product's)."""
    apply, move_step = merges.apply, merges.move_step

    async def pointed_apply(postgres: Postgres, command: MergeCommand) -> Merged:
        merged = await apply(postgres, command)
        if merged.named:
            await points.at("after_merge")
        return merged

    async def pointed_step(postgres: Postgres, limit: int) -> int | None:
        moved = await move_step(postgres, rows or limit)
        if moved:
            await points.at("mid_move")
        return moved

    setattr(merges, "apply", pointed_apply)  # noqa: B010 - for this process alone
    setattr(merges, "move_step", pointed_step)  # noqa: B010


class PointedTransactional(Transactional):
    """Every step of a transaction may be the last one."""

    def __init__(self, outlet: Outlet, source: object, points: Points) -> None:
        super().__init__(outlet, source)
        self._points = points

    async def start(self) -> None:
        """Fencing, between two points."""
        await self._points.at("before_start")
        await super().start()
        await self._points.at("after_start")

    async def begin(self) -> None:
        """The transaction opens."""
        await super().begin()
        await self._points.at("after_begin")

    async def send(self, packed: Packed) -> None:
        """One half acknowledged, then the other."""
        await in_halves(super().send, packed, self._points)

    async def place(self, next_offset: int) -> None:
        """The offset."""
        await super().place(next_offset)
        await self._points.at("after_offsets")

    async def commit(self) -> None:
        """Everything becomes visible."""
        await super().commit()
        await self._points.at("after_commit")


class PointedIdempotent(Idempotent):
    """Between the outputs, and between outputs and offset."""

    def __init__(self, outlet: Outlet, source: object, group: Group[Lane], points: Points) -> None:
        super().__init__(outlet, source, group.commit)
        self._points = points

    async def send(self, packed: Packed) -> None:
        """One half acknowledged, then the other."""
        await in_halves(super().send, packed, self._points)

    async def place(self, next_offset: int) -> None:
        """The offset."""
        await super().place(next_offset)
        await self._points.at("after_commit")


async def in_halves(
    send: Callable[[Packed], Awaitable[None]], packed: Packed, points: Points
) -> None:
    """What a crash in the middle leaves half written."""
    targets = list(packed.items())
    half = (len(targets) + 1) // 2
    await send(dict(targets[:half]))
    await points.at("mid_sends")
    await send(dict(targets[half:]))
    await points.at("after_sends")


def pointed_sink(outlet: Outlet, partition: object, group: Group[Lane], points: Points) -> Sink:
    """The sink of the guarantee that is set."""
    if outlet.cluster.settings.processing_guarantee == "exactly_once":
        return PointedTransactional(outlet, partition, points)
    return PointedIdempotent(outlet, partition, group, points)
