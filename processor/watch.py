"""The watch over the lanes: lag as metrics, and the end of a process that makes no progress."""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from time import monotonic

from processor.failures import Retryable
from processor.io.kafka_group import Group
from processor.lanes import Lane
from processor.pure.progress import Marks, View, observe, stalled
from processor.waits import Waits

LOOK_S = 2.0


class StalledError(Exception):
    """A lane has made no progress for too long although nothing it needs is away."""


class Watch:
    """Remembers since when what has not moved."""

    def __init__(
        self, waits: Waits, limit_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._waits = waits
        self._limit_s = limit_s
        self._clock = clock
        self._marks: Marks = {}
        self._looked_s = clock()
        self._drains = False

    async def over(self, group: Group[Lane]) -> None:
        """Looks every `LOOK_S` while the membership lasts; raises `StalledError`."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look(group)
            self.tended()

    def tended(self) -> None:
        """Somebody looks after the lanes just now."""
        if not self._drains:
            self._looked_s = self._clock()

    def drain(self) -> None:
        """What the worker does from now on must end: looking at it proves nothing any more."""
        self._drains = True

    def silent_s(self) -> float:
        """How long ago the last look was that proves the worker alive."""
        return self._clock() - self._looked_s

    async def _look(self, group: Group[Lane]) -> None:
        try:
            views = await self._views(group)
        except Retryable as failure:
            self._waits.begin("watch", failure)
            self._marks = {}
            for lane in group.lanes.values():
                lane.tell(None)
            return
        self._waits.over("watch")
        now = self._clock()
        self._marks = observe(self._marks, views, now)
        if late := stalled(self._marks, now, self._limit_s):
            names = ", ".join(sorted(map(str, late)))
            raise StalledError(f"no progress for {self._limit_s:g} s, with nothing away: {names}")

    async def _views(self, group: Group[Lane]) -> Mapping[Hashable, View]:
        if not group.joined:
            await group.answers()
            return {"group": View(0, expected=not self._waits.away)}
        self._waits.over("group")
        identities = await group.identities()
        lanes = dict(group.lanes)
        for partition, lane in lanes.items():
            if partition.topic in identities:
                lane.reads(identities[partition.topic])
        ends = await group.ends(list(lanes))
        return {
            p: await self._view(group, lanes[p], end) for p, end in ends.items() if group.owns(p)
        }

    async def _view(self, group: Group[Lane], lane: Lane, end: int) -> View:
        partition = lane.partition
        # The last offsets of a partition may be no records: what is fetched counts while nothing is in hand.
        at = await group.position(partition) if lane.idle else lane.state.offset
        lag = max(0, end - at)
        lane.tell(lag)
        begins = lane.state.phase in {"waiting", "starting"}
        return View(at, expected=(begins or lag > 0) and not lane.excused)
