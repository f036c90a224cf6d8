"""The watch over the engagement service: its lag as a metric, whether Kafka answers, and the end of a process that makes no progress."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from time import monotonic
from typing import Protocol

from processor import telemetry
from processor.failures import Retryable
from processor.pure.places import Standing
from processor.pure.progress import Marks, View, observe, stalled
from processor.waits import Waits

LOOK_S = 2.0
REFETCH_S = 10.0
"""What was fetched and is not counted after this is believed to be lost on the way."""
STALL_S = 300.0


class StalledError(Exception):
    """Nothing was counted for too long although nothing is away."""


class Reading(Protocol):
    """A membership of the group."""

    @property
    def joined(self) -> bool:
        """Whether it has been given its partitions."""

    async def standing(self) -> Mapping[int, Standing]:
        """How far each of them is fetched; raises `Retryable`."""


class Watch:
    """Remembers since when what has not moved; `places` are where the partitions of `topic` are counted up to."""

    def __init__(
        self,
        topic: str,
        places: Callable[[], Awaitable[Mapping[int, int]]],
        waits: Waits,
        limits_s: tuple[float, float] = (REFETCH_S, STALL_S),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._topic = topic
        self._places = places
        self._waits = waits
        self._refetch_s, self._limit_s = limits_s
        self._marks: Marks = {}
        self._told: set[int] = set()
        self._clock = clock
        self._looked_s = clock()

    def silent_s(self) -> float:
        """How long ago the last look was."""
        return self._clock() - self._looked_s

    async def look(self, reader: Reading | None) -> Mapping[int, int]:
        """Partitions to fetch again, each from its place; raises `StalledError`."""
        self._looked_s = self._clock()
        try:
            views = await self._views(reader)
        except Retryable as failure:
            self._waits.begin("watch", failure)
            self._marks = {}
            return {}
        self._waits.over("watch")
        now = self._clock()
        self._marks = observe(self._marks, views, now)
        if late := stalled(self._marks, now, self._limit_s):
            names = ", ".join(sorted(map(str, late)))
            raise StalledError(f"no progress for {self._limit_s:g} s, with nothing away: {names}")
        lost = stalled(self._marks, now, self._refetch_s)
        return {key: views[key].at for key in lost if isinstance(key, int)}

    async def _views(self, reader: Reading | None) -> Mapping[Hashable, View]:
        if reader is None or not reader.joined:
            self._tell({})
            return {"group": View(0, expected=not self._waits.away)}
        standing = await reader.standing()
        places = await self._places()
        lags = {p: stands.lag(places.get(p, 0)) for p, stands in standing.items()}
        self._tell(lags)
        return {
            p: View(places.get(p, 0), expected=lag > 0 and not self._waits.away)
            for p, lag in lags.items()
        }

    def _tell(self, lags: Mapping[int, int]) -> None:
        """Of the partitions that it has; of others whoever has them tells."""
        for partition in self._told - lags.keys():
            telemetry.LAG.remove(self._topic, partition)
        for partition, lag in lags.items():
            telemetry.LAG.labels(self._topic, partition).set(lag)
        self._told = set(lags)
