"""The watch over the engagement service: its lag as a metric, whether Kafka answers, and the end of a process that makes no progress."""

from collections.abc import Hashable, Mapping
from time import monotonic

from processor import telemetry
from processor.enriched_reader import Reader
from processor.failures import Retryable
from processor.io.engagement_store import Store
from processor.pure.progress import Marks, View, observe, stalled
from processor.waits import Waits

LOOK_S = 2.0
STALL_S = 300.0


class StalledError(Exception):
    """Nothing was counted for too long although nothing is away."""


class Watch:
    """Remembers since when what has not moved."""

    def __init__(self, store: Store, waits: Waits, topic: str) -> None:
        self._store = store
        self._waits = waits
        self._topic = topic
        self._marks: Marks = {}

    async def look(self, reader: Reader | None) -> None:
        """Raises `StalledError`."""
        try:
            views = await self._views(reader)
        except Retryable as failure:
            self._waits.begin("watch", failure)
            self._marks = {}
            return
        self._waits.over("watch")
        now = monotonic()
        self._marks = observe(self._marks, views, now)
        if late := stalled(self._marks, now, STALL_S):
            names = ", ".join(sorted(map(str, late)))
            raise StalledError(f"no progress for {STALL_S:g} s, with nothing away: {names}")

    async def _views(self, reader: Reader | None) -> Mapping[Hashable, View]:
        if reader is None or not reader.joined:
            return {"group": View(0, expected=not self._waits.away)}
        standing = await reader.standing()
        places = await self._store.places()
        views: dict[Hashable, View] = {}
        for partition, stands in standing.items():
            place = places.get(partition, 0)
            lag = stands.lag(place)
            telemetry.LAG.labels(self._topic, partition).set(lag)
            views[partition] = View(place, expected=lag > 0 and not self._waits.away)
        return views
