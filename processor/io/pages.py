"""Records of some topics that were written a while ago, a page at a time, for those who come back.

A few consumers serve all of them in turn, each for one page: nobody who reads slowly, and nobody with much to read, keeps
another from reading.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from aiokafka.errors import OffsetOutOfRangeError
from msgspec import Struct

from processor.failures import Failure
from processor.io.kafka import Cluster, Partition, translated
from processor.io.kafka_reading import stopped
from processor.pure.frames import Read
from processor.pure.position import Place, Position, advanced, behind

READERS = 4
ANSWER_S = 10.0
PAGE_S = 20.0
PAGE_BYTES = 256 << 10
"""Of records that are wanted; a page ends after the fetch that reached it."""
LOOKED_THROUGH_BYTES = 4 << 20
"""Of all records a page looks at."""
_PARTITION_BYTES = 256 << 10
_FETCH_BYTES = 1 << 20
_FETCH_MS = 20
_RECORD_BYTES = 100
"""What a record weighs besides its value."""

Mine: TypeAlias = Callable[[Read], bool]


class Gone(Failure):
    """Records that were asked for are not kept any more."""


class Page(Struct, frozen=True):
    """Records, in order within their partitions, and the position up to which they are all there is."""

    records: Sequence[Read]
    reached: Position


class Pages:
    """Reads ranges of topics; nothing is connected before it is needed."""

    def __init__(self, cluster: Cluster, topics: Sequence[str]) -> None:
        self._cluster = cluster
        self._names = topics
        self._turns = asyncio.Semaphore(READERS)
        self._idle: list[Any] = []

    async def read(self, since: Position, until: Position, mine: Mine) -> Page:
        """What is wanted of the first records between two positions; the second is not past the end.

        Raises `Gone`, and `Retryable` while Kafka is away.
        """
        async with self._reader() as consumer, translated(PAGE_S):
            self._assign(consumer, since, until)
            return await self._page(consumer, since, until, mine)

    async def past_the_end(self, needed: Mapping[Place, int]) -> bool:
        """Whether any of these offsets is past the end of its partition; raises `Retryable`."""
        partitions = {Partition(self._names[t], p): offset for (t, p), offset in needed.items()}
        async with self._reader() as consumer, translated(ANSWER_S):
            ends = await consumer.end_offsets(list(partitions))
        return any(offset > ends[partition] for partition, offset in partitions.items())

    async def close(self) -> None:
        """Ends every connection; nobody reads any more."""
        while self._idle:
            await stopped(self._idle.pop())

    async def _page(self, consumer: Any, since: Position, until: Position, mine: Mine) -> Page:
        found: list[Read] = []
        wanted = seen = 0
        while (
            (left := behind(since, until)) and wanted < PAGE_BYTES and seen < LOOKED_THROUGH_BYTES
        ):
            for read in await self._fetched(consumer, since, left):
                seen += _weight(read)
                if read.place in left and read.offset < left[read.place][1] and mine(read):
                    wanted += _weight(read)
                    found.append(read)
            for place, (_, after) in left.items():
                offset = int(await consumer.position(self._partition(place)))
                since = advanced(since, place, min(offset, after))
        return Page(found, since)

    async def _fetched(
        self, consumer: Any, since: Position, left: Collection[Place]
    ) -> Sequence[Read]:
        """None after a while where there is no record, but perhaps the end of a transaction, which is passed too."""
        try:
            fetched = await consumer.getmany(timeout_ms=_FETCH_MS)
        except OffsetOutOfRangeError as error:
            starts = await consumer.beginning_offsets([self._partition(place) for place in left])
            if any(starts[self._partition(place)] > since.next(place) for place in left):
                raise Gone("records are not kept any more") from error
            return ()  # a late answer to what was asked before
        return [
            read_of(placed(self._names, partition), record)
            for partition, records in fetched.items()
            for record in records
        ]

    def _assign(self, consumer: Any, since: Position, until: Position) -> None:
        ranges = behind(since, until)
        consumer.assign([self._partition(place) for place in ranges])
        for place, (first, _) in ranges.items():
            consumer.seek(self._partition(place), first)

    def _partition(self, place: Place) -> Partition:
        return Partition(self._names[place[0]], place[1])

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Any]:
        """A consumer whose turn it is; one that failed is not used again."""
        async with self._turns:
            consumer = self._idle.pop() if self._idle else await self._connected()
            try:
                yield consumer
            except BaseException:
                await stopped(consumer)
                raise
            consumer.unsubscribe()
            self._idle.append(consumer)

    async def _connected(self) -> Any:
        consumer = self._cluster.follower(_PARTITION_BYTES, _FETCH_BYTES)
        try:
            async with translated(ANSWER_S):
                await consumer.start()
        except BaseException:
            await stopped(consumer)
            raise
        return consumer


def placed(names: Sequence[str], partition: Partition) -> Place:
    """Its place among the topics of these names."""
    return names.index(partition.topic), partition.partition


def read_of(place: Place, record: Any) -> Read:
    """What the pure code knows of a record."""
    return Read(place, record.offset, record.headers, record.value)


def _weight(read: Read) -> int:
    return _RECORD_BYTES + len(read.value or b"")
