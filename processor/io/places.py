"""How far lanes have published, as Postgres remembers it beside the offsets that their group has in Kafka.

A coordinator that begins to answer before it has read all of its log, as brokers may after a crash, names offsets of long ago; a
lane that believed it would publish everything since once more.  What is kept here lags behind by a moment, never ahead.
"""

import asyncio
from collections.abc import Callable

from processor.io.kafka import Partition
from processor.io.postgres import Postgres

PAUSE_S = 1.0


class Places:
    """The places of one group's lanes; what asks Postgres raises `Retryable`."""

    def __init__(self, postgres: Postgres, group: str) -> None:
        self._postgres = postgres
        self._group = group
        self._new: dict[Partition, tuple[bytes, int]] = {}

    def reached(self, partition: Partition, topic: bytes, offset: int) -> None:
        """Everything below `offset` is published; `topic` is its identity.  Kept with the next `keep`."""
        self._new[partition] = topic, offset

    async def kept(self, partition: Partition, topic: bytes) -> int | None:
        """Up to where the partition is published at least; None where nothing is known of this topic."""
        if partition in self._new:
            identity, offset = self._new[partition]
            return offset if identity == topic else None
        rows = await self._postgres.fetch("lane_place", self._group, *partition, topic)
        return rows[0]["next_offset"] if rows else None

    async def keep(self) -> None:
        """Tells Postgres what is new."""
        if not self._new:
            return
        told = dict(self._new)
        columns = zip(*((*p, topic, offset) for p, (topic, offset) in told.items()), strict=True)
        await self._postgres.execute("keep_lane_places", self._group, *map(list, columns))
        for partition, place in told.items():
            if self._new.get(partition) == place:
                del self._new[partition]


async def keeper(places: Places, answered: Callable[[], None], pause: float = PAUSE_S) -> None:
    """Keeps places until cancelled, every `pause` seconds; `answered` is called each time.  Raises `Retryable`."""
    while True:
        await places.keep()
        answered()
        await asyncio.sleep(pause)
