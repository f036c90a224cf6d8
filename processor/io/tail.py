"""The newest records of some topics, as they are committed: one reader of a process for all that want to see them.

It begins at the end of every partition, and reads partitions that are added from their first record on.  While Kafka is away it
waits, and goes on where it was.  What it could not read before it was removed is told, never skipped in silence.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka.errors import OffsetOutOfRangeError

from processor.failures import Retryable
from processor.io.kafka import Cluster, Partition, translated
from processor.io.kafka_reading import stopped
from processor.io.pages import placed, read_of
from processor.io.topic_ids import look
from processor.pure.frames import Read
from processor.pure.position import (
    Lost,
    Place,
    Position,
    Topic,
    adopted,
    advanced,
    ahead,
    followed,
)
from processor.waits import Waits

ANSWER_S = 10.0
LOOK_S = 2.0
"""How soon added partitions are seen, and a topic that was created again."""
STANDS_STILL = 5
"""Looks without a step forward, while there are records ahead, after which a reader is given up."""
POLL_MS = 250
CHUNK = 100
"""After so many records everybody else has a turn."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.2, 3.0
_PARTITION_BYTES = 1 << 20
_FETCH_BYTES = 8 << 20


class Sink(Protocol):
    """Who is told of records.  Its methods return at once."""

    def read(self, before: Position, record: Read) -> None:
        """A record, in order within its partition; the tail stands behind it from now on."""

    def lost(self, why: Lost) -> None:
        """Records were removed before they could be read; the tail goes on after them."""


class Tail:
    """Follows topics from their ends until `run` is cancelled."""

    def __init__(self, cluster: Cluster, topics: Sequence[str]) -> None:
        self._cluster = cluster
        self._names = topics
        self._waits = Waits()
        self._position: Position | None = None
        self._started = asyncio.Event()
        self._moved = asyncio.Event()
        self._looked_at: Position | None = None
        self._still = 0

    @property
    def position(self) -> Position:
        """Everything before it has been handed over, nothing after it; once it has `started`."""
        assert self._position is not None, "not started"  # noqa: S101 - whoever asks has waited
        return self._position

    async def started(self) -> None:
        """Returns when it knows where it stands: whatever is committed from then on will be handed over."""
        await self._started.wait()

    async def reached(self, position: Position) -> "Position | Lost":
        """The position with every partition there is, once the tail is not behind it in any of them.

        Another API process may have given it, which was a little faster.  Whether it is past the end for good is not found out.
        """
        looks = 2  # for partitions that are not known here yet
        while (found := adopted(position, self.position)) == "ahead" and looks:
            looks -= 1
            await asyncio.sleep(LOOK_S)
        while isinstance(found, Position) and ahead(found, self.position):
            await self._moved.wait()
            found = adopted(position, self.position)
        return found

    async def run(self, sink: Sink) -> None:
        """For ever; whatever Kafka answers, it tries again."""
        backoff = FIRST_BACKOFF_S
        while True:
            before = self._position
            try:
                await self._follow(sink)
            except Retryable as error:
                self._waits.begin(self, error)
            backoff = FIRST_BACKOFF_S if self._position is not before else backoff
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_S)

    async def _follow(self, sink: Sink) -> None:
        """With one consumer; raises `Retryable` when it is worth nothing any more."""
        consumer = self._cluster.follower(_PARTITION_BYTES, _FETCH_BYTES)
        self._looked_at, self._still = None, 0
        clock = asyncio.get_running_loop().time
        try:
            async with translated(ANSWER_S * 2):
                await consumer.start()
            while True:
                await self._look(consumer, sink)
                await self._moves(consumer)
                self._waits.over(self)
                again = clock() + LOOK_S
                while clock() < again:
                    await self._poll(consumer, sink)
        finally:
            await stopped(consumer)

    async def _look(self, consumer: Any, sink: Sink) -> None:
        """Takes up what is new: partitions, and topics in the place of others."""
        async with translated(ANSWER_S):
            topics = await look(consumer._client, self._names)  # noqa: SLF001 - it has no name for it
            if self._position is None:
                self._position = await self._ends(consumer, topics)
                self._started.set()
        position, recreated = followed(self._position, topics)
        if changed := position != self._position:
            self._position = position
        if changed or not consumer.assignment():
            self._assign(consumer)
            self._tell()
        if recreated:
            sink.lost("recreated")

    async def _moves(self, consumer: Any) -> None:
        """A consumer may stand still for good without a word; raises `Retryable` then."""
        async with translated(ANSWER_S):
            ends = await consumer.end_offsets(list(consumer.assignment()))
        position = self.position
        left = [p for p, end in ends.items() if end > position.next(placed(self._names, p))]
        stands = bool(left) and position == self._looked_at
        self._still = self._still + 1 if stands else 0
        self._looked_at = position
        if self._still == STANDS_STILL:
            raise Retryable("kafka", "the reader of the live stream stands still")

    async def _ends(self, consumer: Any, topics: Sequence[Topic]) -> Position:
        """After the last record that is committed, or before the first of a transaction that is not."""
        position = Position(tuple(topics))
        partitions = [self._partition(place) for place in position.places]
        ends: Mapping[Partition, int] = await consumer.end_offsets(partitions)
        for partition, end in ends.items():
            position = advanced(position, placed(self._names, partition), end)
        return position

    def _assign(self, consumer: Any) -> None:
        """What was fetched and not handed over yet is fetched again."""
        places = self.position.places
        consumer.assign([self._partition(place) for place in places])
        for place in places:
            consumer.seek(self._partition(place), self.position.next(place))

    async def _poll(self, consumer: Any, sink: Sink) -> None:
        lost: Mapping[Partition, int] = {}
        fetched: Mapping[Partition, Sequence[Any]] = {}
        async with translated(ANSWER_S):
            try:
                fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=CHUNK)
            except OffsetOutOfRangeError as error:
                lost = error.args[0]
        if lost:
            await self._skip(consumer, lost, sink)
        for partition, records in fetched.items():
            place = placed(self._names, partition)
            for record in records:
                before = self.position
                self._position = advanced(before, place, record.offset + 1)
                sink.read(before, read_of(place, record))
        await self._pass_markers(consumer)
        self._tell()
        await asyncio.sleep(0)

    async def _pass_markers(self, consumer: Any) -> None:
        """The end of a transaction is an offset without a record."""
        for place in self.position.places:
            async with translated(ANSWER_S):
                offset = int(await consumer.position(self._partition(place)))
            if offset > self.position.next(place):
                self._position = advanced(self.position, place, offset)

    async def _skip(self, consumer: Any, lost: Mapping[Partition, int], sink: Sink) -> None:
        """Goes on where there are records, and says so."""
        await self._look(consumer, sink)
        partitions = list(lost)
        async with translated(ANSWER_S):
            starts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            place = placed(self._names, partition)
            offset = self.position.next(place)
            kept = min(max(offset, starts[partition]), ends[partition])
            consumer.seek(partition, kept)
            if kept != offset:
                self._position = advanced(self.position, place, kept)
                sink.lost("expired" if kept > offset else "ahead")
        self._tell()

    def _partition(self, place: Place) -> Partition:
        return Partition(self._names[place[0]], place[1])

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
