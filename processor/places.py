"""Where a lane begins: where its group stands, unless the group's coordinator has forgotten how far lanes have published.

A place that is remembered outside of Kafka is believed only where the topic still holds the very record that was published last:
of a Kafka that has lost the end of its log, or was restored, all that it has now is still to be processed.  So is all of a topic
that was created again: a lane commits by name, and may have done so after its topic was gone.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from processor.failures import Retryable
from processor.io.kafka import Partition
from processor.pure.lane import Bounds
from processor.pure.position import IDENTITY
from processor.pure.types import Record

log = structlog.get_logger(__name__)
KEEP_S = 1.0


class Place(Struct, frozen=True):
    """Everything below `next_offset` is published."""

    topic: bytes
    """The topic's identity, and that of its name; places of before have the former alone."""
    next_offset: int
    last_offset: int | None = None
    """Of the record that was published last; None: it is not known, and the place is not believed."""
    last_digest: bytes = b""


DOUBTED = Place(b"", 0)
"""Of no topic: believed nowhere."""


class Places(Protocol):
    """Places as they are remembered outside of Kafka."""

    async def kept(self, partition: Partition) -> Place | None:
        """The last one that is remembered.  Raises `Retryable`."""

    async def take(self, partition: Partition, place: Place) -> None:
        """A lane begins: this is remembered, and nothing that former lanes tell from now on.

        Raises `Retryable`, also where another lane has begun since the last one was asked for or taken.
        """

    def reached(self, partition: Partition, place: Place) -> None:
        """To be remembered soon, at the latest with the next `keep`."""

    async def keep(self) -> None:
        """Remembers what is new.  Raises `Retryable`."""


class Source(Protocol):
    """The membership that the lane belongs to."""

    async def bounds(self, partition: Partition) -> Bounds:
        """The group's offset and what the topic holds; raises `Retryable`."""

    async def record(self, partition: Partition, offset: int) -> Record | None:
        """The record at an offset below the end; None where there is none.  Raises `Retryable`."""


class Own:
    """The place of one lane."""

    def __init__(self, partition: Partition, source: Source, places: Places) -> None:
        self._partition = partition
        self._source = source
        self._places = places
        self._known: Place | None = None
        self._topic = b""

    async def bounds(self) -> Bounds:
        """Where the group stands, and what is published where more is known of it.  Raises `Retryable`."""
        place = self._known = await self._places.kept(self._partition)
        bounds = await self._source.bounds(self._partition)
        if place is None:
            return bounds
        if _of_another_topic(place, bounds):
            log.warning("offset_of_another_topic", committed=bounds.committed)
            return replace(bounds, committed=None, stale=True)
        if _lost(place, bounds) or (_beyond(place, bounds) and await self._stands(place, bounds)):
            return replace(bounds, published=place.next_offset)
        return bounds

    def left(self, topic: bytes) -> bool:
        """Whether that is another topic than the one the lane began in."""
        return _another(self._topic, topic)

    @property
    def doubted(self) -> bool:
        """Whether a lane that was to begin here has doubted the place, and come to no end."""
        return self._known == DOUBTED

    async def doubt(self) -> Place | None:
        """What was remembered, which is not believed any more until a lane begins.  Raises `Retryable`, also where one has begun meanwhile."""
        await self._places.take(self._partition, DOUBTED)
        return self._known

    async def believe(self, place: Place | None) -> None:
        """What was doubted is true again.  Raises `Retryable`, also where a lane has begun since the doubt."""
        if place is not None:
            await self._places.take(self._partition, place)

    async def begin(self, bounds: Bounds, offset: int) -> None:
        """The lane begins at an offset, before it publishes anything: where somebody put the group back it is not forgotten.  Raises `Retryable`."""
        self._topic, known = bounds.topic, self._known
        if known is None or not _same(known, bounds) or known.next_offset > offset:
            known = Place(bounds.topic, offset)
        await self._places.take(self._partition, known)

    def published(self, records: Sequence[Record]) -> None:
        """The lane has published a batch."""
        last = records[-1]
        place = Place(self._topic, last.offset + 1, last.offset, digest(last))
        self._places.reached(self._partition, place)

    async def keep(self) -> None:
        """For whoever has the partition next, within `KEEP_S`; where Postgres is silent what is known is a moment older."""
        with suppress(Retryable, TimeoutError):
            async with asyncio.timeout(KEEP_S):
                await self._places.keep()

    async def _stands(self, place: Place, bounds: Bounds) -> bool:
        """Whether the topic holds the record that was published last; one that holds nothing has nothing to skip or to repeat."""
        if bounds.start == bounds.end == place.next_offset:
            return True
        last = place.last_offset
        if last is None or not bounds.start <= last < bounds.end:
            return False
        record = await self._source.record(self._partition, last)
        return record is not None and digest(record) == place.last_digest


def digest(record: Record) -> bytes:
    """Tells a record from any other that may ever be at its place."""
    told = repr((record.offset, record.timestamp, record.key, record.value)).encode()
    return blake2b(told, digest_size=8).digest()


def _same(place: Place, bounds: Bounds) -> bool:
    return place.topic in (bounds.topic, bounds.topic[:IDENTITY])


def _another(before: bytes, now: bytes) -> bool:
    """Whether these are two topics, one after the other under one name; not where brokers do not tell, or did not then."""
    name = now[IDENTITY:]
    told_apart = name not in (before[:IDENTITY], now[:IDENTITY])
    return before != now and before[IDENTITY:] == name and told_apart


def _of_another_topic(place: Place, bounds: Bounds) -> bool:
    """Whether a lane that began in a topic of before has committed the group's offset: Kafka takes it by the topic's name."""
    return bounds.by_lane and _another(place.topic, bounds.topic)


def _lost(place: Place, bounds: Bounds) -> bool:
    """Whether records that no lane has published were removed, and nobody but Postgres knows: the lane then stops."""
    forgotten = bounds.committed is None and place.next_offset < bounds.start
    return forgotten and _same(place, bounds)


def _beyond(place: Place, bounds: Bounds) -> bool:
    """Whether lanes came further, in the same topic, than the coordinator says that a lane has come; it may know nothing at all any more."""
    if not _same(place, bounds):
        return False
    if bounds.committed is None:
        return place.next_offset > bounds.start
    return bounds.by_lane and place.next_offset > bounds.committed
