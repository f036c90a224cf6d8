"""How far lanes have published, as Postgres remembers it beside the offsets that their group has in Kafka.

A coordinator that begins to answer before it has read all of its log, as brokers may after a crash, names offsets of long ago; a
lane that believed it would publish everything since once more.  What is kept here lags behind by a moment.
"""

import asyncio
from collections.abc import Callable

from msgspec import structs

from processor.io.kafka import Partition
from processor.io.postgres import Postgres
from processor.places import Place

PAUSE_S = 1.0


class Places:
    """The places of one group's lanes."""

    def __init__(self, postgres: Postgres, group: str) -> None:
        self._postgres = postgres
        self._group = group
        self._new: dict[Partition, Place] = {}
        self._keeping = asyncio.Lock()
        """One call at a time: a later place is never followed by an earlier one."""

    async def kept(self, partition: Partition) -> Place | None:
        """The last one of a lane here, or that was kept by whoever had the partition.  Raises `Retryable`."""
        if partition in self._new:
            return self._new[partition]
        rows = await self._postgres.fetch("lane_place", self._group, *partition)
        return Place(*rows[0]) if rows else None

    def reached(self, partition: Partition, place: Place) -> None:
        """Kept with the next `keep`."""
        self._new[partition] = place

    def leave(self, partition: Partition) -> None:
        """Whoever has the partition now tells of it."""
        self._new.pop(partition, None)

    async def keep(self) -> None:
        """Tells Postgres what is new.  Raises `Retryable`."""
        async with self._keeping:
            told = dict(self._new)
            if not told:
                return
            columns = zip(*((*p, *structs.astuple(one)) for p, one in told.items()), strict=True)
            await self._postgres.execute("keep_lane_places", self._group, *map(list, columns))
            for partition, place in told.items():
                if self._new.get(partition) is place:
                    del self._new[partition]


async def keeper(places: Places, answered: Callable[[], None], pause: float = PAUSE_S) -> None:
    """Keeps places until cancelled, every `pause` seconds; `answered` is called each time.  Raises `Retryable`."""
    while True:
        await places.keep()
        answered()
        await asyncio.sleep(pause)
