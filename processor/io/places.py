"""How far lanes have published, as Postgres remembers it beside the offsets that their group has in Kafka.

A coordinator that begins to answer before it has read all of its log, as brokers may after a crash, names offsets of long ago; a
lane that believed it would publish everything since once more.  What is kept here lags behind by a moment.
"""

import asyncio
import secrets
from collections.abc import Callable

from msgspec import structs

from processor.failures import Retryable
from processor.io.kafka import Partition
from processor.io.postgres import Postgres
from processor.places import Place

PAUSE_S = 1.0


class Places:
    """The places of one group's lanes."""

    def __init__(self, postgres: Postgres, group: str) -> None:
        self._postgres = postgres
        self._group = group
        self._owners: dict[Partition, str] = {}
        """Of lanes that began here."""
        self._seen: dict[Partition, str] = {}
        """Whose the place was that was asked for last."""
        self._new: dict[Partition, Place] = {}
        self._keeping = asyncio.Lock()
        """One call at a time: a later place is never followed by an earlier one."""

    async def kept(self, partition: Partition) -> Place | None:
        """The last one of whoever began there last.  Raises `Retryable`."""
        rows = await self._postgres.fetch("lane_place", self._group, *partition)
        if not rows:
            self._seen.pop(partition, None)
            return None
        owner, *place = rows[0]
        self._seen[partition] = owner
        new = self._new.get(partition)
        return new if new and owner == self._owners.get(partition) else Place(*place)

    async def take(self, partition: Partition, place: Place) -> None:
        """A lane begins there: from now on what others tell of the partition counts no more.

        Raises `Retryable`, also where another lane has begun there since `kept` or `take`: who was held up does not undo what came after.
        """
        owner, before = secrets.token_hex(8), self._seen.get(partition, "")
        row = self._group, *partition, owner, *structs.astuple(place)
        if not await self._postgres.fetch("take_lane_place", *row, before):
            raise Retryable("postgres", "another lane has begun here meanwhile")
        self._owners[partition] = self._seen[partition] = owner
        self._new.pop(partition, None)

    def reached(self, partition: Partition, place: Place) -> None:
        """Kept with the next `keep`."""
        self._new[partition] = place

    async def keep(self) -> None:
        """Tells Postgres what is new.  Raises `Retryable`."""
        async with self._keeping:
            told = dict(self._new)
            if not told:
                return
            rows = ((*p, self._owners[p], *structs.astuple(one)) for p, one in told.items())
            columns = map(list, zip(*rows, strict=True))
            await self._postgres.execute("keep_lane_places", self._group, *columns)
            for partition, place in told.items():
                if self._new.get(partition) is place:
                    del self._new[partition]


async def keeper(places: Places, answered: Callable[[], None], pause: float = PAUSE_S) -> None:
    """Keeps places until cancelled, every `pause` seconds; `answered` is called each time.  Raises `Retryable`."""
    while True:
        await places.keep()
        answered()
        await asyncio.sleep(pause)
