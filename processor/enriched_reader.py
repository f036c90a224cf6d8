"""The enriched topic, read with Faust: the membership of a consumer group, the stream, the batches.  Faust is imported here alone.

Its consumer is told to read committed messages only, and its offsets are a hint for operators: where a partition goes on is committed
to Postgres with what was counted, and every assignment begins there.  Records carry the offset of the record fetched before them, so that
none is left out unseen, whatever a rebalance does to Faust's buffers.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import faust
from faust.app.base import BootStrategy
from faust.exceptions import NotReady
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP
from msgspec import Struct
from msgspec.structs import replace

from processor.failures import Retryable, Stopped
from processor.io.engagement_store import Place
from processor.io.kafka import NOWHERE, Cluster, translated
from processor.io.kafka_records import together
from processor.io.topic_ids import look
from processor.pure.enriched import found_in
from processor.pure.places import Delivered, Standing
from processor.pure.position import NO_TOPIC

BATCH = 500
BATCH_S = 0.1
FETCHED_BYTES = 256 << 10
"""Of a partition at once.  Faust makes messages of all it gets before it waits for anybody."""
ANSWER_S = 5.0
HELD_S = 60.0
AGAIN_S = 0.5
_BUFFERED = 1_000
_UNKNOWN = 2**63 - 1
"""Of the record before the first one that is fetched from a place nobody chose."""
_PREVIOUS = "previous"


class Counting(Protocol):
    """What the reader reads for."""

    async def take(self, delivered: Sequence[Delivered]) -> None:
        """Counts a batch; never raises."""

    async def opened(self, topic_id: bytes, begins: Mapping[int, int]) -> Mapping[int, Place]:
        """Where partitions go on, at their begins those that were never counted; never raises."""

    def fail(self, error: Exception) -> None:
        """Going on would be wrong."""


class Extent(Struct, frozen=True):
    """What a partition holds, and of which topic."""

    topic_id: bytes
    begin: int
    end: int


class _Thread(AIOKafkaConsumerThread):
    """Fetches with a consumer of ours, and ties each record to the one before it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.before: dict[TP, int] = {}

    def _create_worker_consumer(self, transport: Transport) -> Any:
        """Faust's own would read messages of aborted transactions."""
        reader = cast("Reader", self.app)
        return reader.cluster.member(reader.conf.id, FETCHED_BYTES)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """What is fetched from now on, until the next seek, comes after who knows what."""
        self.before.clear()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """As when they are revoked."""
        self.before.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        self.before.update({tp: offset - 1 for tp, offset in partitions.items()})
        await super()._seek_wait(consumer, partitions)

    async def _fetch_records(self, *args: Any, **more: Any) -> Any:
        with together():
            found = await super()._fetch_records(*args, **more)
        return {tp: [self._tied(tp, record) for record in records] for tp, records in found.items()}

    async def topic_id(self, topic: str) -> bytes:
        """Another one once the topic was created again; `NO_TOPIC` where there is none."""
        found: bytes = await self.call_thread(self._topic_id, topic)
        return found

    async def _topic_id(self, topic: str) -> bytes:
        client = self._ensure_consumer()._client  # noqa: SLF001 - it has no name for it
        (found,) = await look(client, [topic])
        return found.identity

    def _tied(self, tp: Any, record: Any) -> Any:
        key = TP(tp.topic, tp.partition)
        before = self.before.get(key, _UNKNOWN)
        if before != _UNKNOWN:
            self.before[key] = record.offset
        return replace(record, headers=(*record.headers, (_PREVIOUS, b"%d" % before)))


class _Consumer(Consumer):
    """Begins where Postgres says."""

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def last(self, tp: TP) -> int:
        """The offset of the last record that was fetched."""
        return cast("_Thread", self._thread).before.get(TP(tp.topic, tp.partition), _UNKNOWN)

    @property
    def sought(self) -> bool:
        """Whether fetching begins where somebody chose."""
        return bool(cast("_Thread", self._thread).before)

    async def _getmany(self, *args: Any, **more: Any) -> Any:
        """Ends the membership where a place is not in the log: an error would end Faust's fetcher, and then Faust may hang."""
        try:
            return await super()._getmany(*args, **more)
        except NOWHERE as error:
            if self.sought:
                await self.app.crash(Retryable("kafka", f"{type(error).__name__}: {error}"))
            return {}

    async def topic_id(self) -> bytes:
        """Raises `Retryable` where the topic is not there."""
        topic = cast("Reader", self.app).enriched
        found = await cast("_Thread", self._thread).topic_id(topic)
        if found == NO_TOPIC:
            raise Retryable("kafka", f"there is no topic {topic}")
        return found

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Where each partition goes on; from the beginning where it never began."""
        held = await self._held()
        if not held:
            return {}
        counting = cast("Reader", self.app).counting
        begins = {tp.partition: extent.begin for tp, extent in held.items()}
        known = await counting.opened(self.topic_read, begins)
        try:
            for tp, extent in held.items():
                _look(tp, known[tp.partition], extent)
        except Stopped as stopped:
            counting.fail(stopped)
            raise
        places = {tp: known[tp.partition].offset for tp in held}
        await self.seek_wait(places)
        return places

    async def _held(self) -> Mapping[TP, Extent]:
        """What the topic holds of each partition assigned; asks again while Kafka is away, since an error here may make Faust hang."""
        clock = asyncio.get_running_loop().time
        patient_until = clock() + HELD_S
        while own := self.assignment():
            try:
                async with translated(ANSWER_S):
                    self.topic_read = await self.topic_id()
                    begins = await self.earliest_offsets(*own)
                    ends = await self.highwaters(*own)
                return {tp: Extent(self.topic_read, begins[tp], ends[tp]) for tp in own}
            except Retryable:
                if clock() > patient_until:
                    raise
                await asyncio.sleep(AGAIN_S)
        return {}


def _look(tp: TP, place: Place, extent: Extent) -> None:
    """Raises `Stopped` where it cannot go on at its place."""
    if place.topic_id != extent.topic_id or place.offset > extent.end:
        raise Stopped(
            f"{tp.topic}/{tp.partition} was counted up to {place.offset} and ends at {extent.end}: the topic was created again."
            " Delete the topic's rows of engagement_places, knowing that what is counted stays, and start again"
        )
    if place.offset < extent.begin:
        raise Stopped(
            f"{tp.topic}/{tp.partition} was counted up to {place.offset} and begins at {extent.begin}: what was in between is"
            " lost. Delete its row of engagement_places, knowing that it is not counted, and start again"
        )


class _Transport(Transport):
    Consumer = _Consumer


class _Boot(BootStrategy):
    """What is told goes another way."""

    enable_kafka_producer = False
    enable_web = False


class Reader(faust.App):
    """A membership of the group, and its stream of the enriched topic."""

    BootStrategy = _Boot

    def __init__(self, cluster: Cluster, counting: Counting) -> None:
        self.cluster = cluster
        self.counting = counting
        settings = cluster.settings
        super().__init__(
            f"{settings.consumer_group}.engagement",
            broker="kafka://",  # names the driver: the consumer is made by the cluster
            stream_buffer_maxsize=_BUFFERED,
            stream_wait_empty=False,  # a rebalance need not wait for a batch that waits for Postgres
            topic_allow_declare=False,
            topic_disable_leader=True,
            autodiscover=False,
        )
        self.enriched = settings.enriched_topic
        records = self.topic(
            settings.enriched_topic,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
        )
        self.agent(records, name="engagement")(self._count)

    @property
    def joined(self) -> bool:
        """Whether it has been given its partitions, be it none."""
        given = self._assignment is not None and not self.rebalancing
        return bool(given and not self.should_stop)

    async def standing(self) -> Mapping[int, Standing]:
        """Of each partition it has; raises `Retryable`."""
        consumer = cast("_Consumer", self.consumer)
        async with _asked():
            if await consumer.topic_id() != consumer.topic_read:
                again = Retryable("kafka", f"the topic {self.enriched} was created again")
                await self.crash(again)
                raise again
            ends = await consumer.highwaters(*consumer.assignment())
            return {
                tp.partition: Standing(end, await consumer.position(tp) or 0, consumer.last(tp))
                for tp, end in ends.items()
            }

    async def go_back(self, places: Mapping[int, int]) -> None:
        """Fetches these partitions again from there, those that it still has; where that cannot be, the membership ends."""
        own = {tp for tp in self.consumer.assignment() if tp.partition in places}
        if not own:
            return
        try:
            async with _asked():
                await self.consumer.seek_wait({tp: places[tp.partition] for tp in own})
        except Retryable as failure:
            await self.crash(failure)

    async def _count(self, stream: Any) -> None:
        async for events in stream.take_events(BATCH, within=BATCH_S):
            await self.counting.take([_delivered(event.message) for event in events])

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """It keeps nothing in files."""


@asynccontextmanager
async def _asked() -> AsyncIterator[None]:
    """Of Kafka, by a membership that may have ended meanwhile; raises `Retryable`."""
    try:
        async with translated(ANSWER_S):
            yield
    except NotReady as error:
        raise Retryable("kafka", "the membership has ended") from error


def _delivered(message: Any) -> Delivered:
    previous = int(message.headers[-1][1])
    return Delivered(message.partition, message.offset, previous, found_in(message.value))
