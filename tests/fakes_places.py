"""A fake of `processor.places.Places`."""

import asyncio
from collections.abc import Callable

from processor.io.kafka import Partition
from processor.places import Place


class KnownPlaces:
    """In memory."""

    def __init__(self) -> None:
        self.known: dict[Partition, Place] = {}
        self._new: dict[Partition, Place] = {}
        self.taking: Callable[[], object] = lambda: None
        """Happens while a lane begins."""

    async def kept(self, partition: Partition) -> Place | None:
        """The last one."""
        return self._new.get(partition, self.known.get(partition))

    async def take(self, partition: Partition, place: Place) -> None:
        """Known at once."""
        self.taking()
        await asyncio.sleep(0)
        self.known[partition] = place
        self._new.pop(partition, None)

    def reached(self, partition: Partition, place: Place) -> None:
        """Until it is kept only a lane that is here knows."""
        self._new[partition] = place

    async def keep(self) -> None:
        """From now on it is known."""
        self.known |= self._new
        self._new.clear()
