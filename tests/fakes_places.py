"""A fake of `processor.lanes.Places`."""

from processor.io.kafka import Partition


class KnownPlaces:
    """In memory, and never behind."""

    def __init__(self) -> None:
        self.known: dict[tuple[Partition, bytes], int] = {}

    async def kept(self, partition: Partition, topic: bytes) -> int | None:
        """Up to where it is published."""
        return self.known.get((partition, topic))

    def reached(self, partition: Partition, topic: bytes, offset: int) -> None:
        """Everything below is published."""
        self.known[partition, topic] = offset

    async def keep(self) -> None:
        """It is."""
