"""Dead letters in Kafka: where their replay stands, reading them, and sending them back.

The place is the offset of a group of its own (``GROUP.replay``), committed by the transaction that sends the letters: what is sent
is done, and nothing else is.  A replay that starts fences one that is under way, whose open transaction is aborted; only then the
place is read.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from msgspec import Struct

from processor.failures import StartRefused
from processor.io.kafka import Cluster, Partition, at_start, translated
from processor.io.kafka_offsets import committed, held
from processor.io.kafka_reading import Reader, stopped
from processor.io.kafka_sink import Batches, Outlet
from processor.io.kafka_topics import Limits, require_topics
from processor.io.topic_ids import look
from processor.pure.place import LARGEST, Place, from_metadata, to_metadata
from processor.pure.types import Message, Record

ANSWER_S = 20.0
POLL_MS = 200
READ_RECORDS = 500
_PARTITION_BYTES, _FETCH_BYTES = 4 << 20, 8 << 20


class Box(Struct, frozen=True):
    """A partition of dead letters as it was when it was looked at."""

    partition: Partition
    topic_id: str
    """Of the topic, which may be created again under its name."""
    place: Place
    start: int
    end: int


class Letters:
    """The dead letters of a cluster; methods raise `StartRefused` or `Retryable`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.topic = cluster.settings.dead_topic
        self.group = f"{cluster.settings.consumer_group}.replay"

    async def boxes(self) -> Sequence[Box]:
        """Every partition, and how far it is replayed."""
        async with at_start(self._cluster) as admin:
            await require_topics(admin, [self.topic])
            (found,) = await look(admin._client, [self.topic])  # noqa: SLF001 - as `look` needs it
            partitions = [Partition(self.topic, number) for number in range(len(found.nexts))]
            kept = await self._kept(admin, partitions)
        starts, ends = await held(self._cluster, partitions)
        topic_id = found.identity.hex()[:16]
        return [
            Box(p, topic_id, self._place(p, kept[p], topic_id), starts[p], ends[p])
            for p in partitions
        ]

    async def _kept(
        self, admin: AIOKafkaAdminClient, partitions: Sequence[Partition]
    ) -> Mapping[Partition, OffsetAndMetadata]:
        """Read until two readings agree: brokers before 4.0 may show a transaction's offset a little after its end."""
        before: Mapping[Partition, OffsetAndMetadata] = {}
        while True:
            now = await committed(admin, self.group, partitions)
            if now == before:
                return now
            before = now

    def _place(self, partition: Partition, kept: OffsetAndMetadata, topic_id: str) -> Place:
        if kept.offset < 0:
            return Place()
        place = from_metadata(kept.offset, kept.metadata, topic_id)
        if place is None:
            raise StartRefused(
                f"the offset of group {self.group} in {partition.topic}/{partition.partition} is not"
                " of a replay: delete that group's offsets (kafka-consumer-groups.sh --delete-offsets)"
            )
        return place

    async def read(self, box: Box) -> AsyncGenerator[Sequence[Record], None]:
        """What the partition held when it was looked at and was not passed for good, in order."""
        at = max(box.place.next, box.start)
        if at >= box.end:
            return
        reader = self._cluster.follower(_PARTITION_BYTES, _FETCH_BYTES)
        try:
            async with translated(ANSWER_S):
                await reader.start()
                reader.assign([box.partition])
                reader.seek(box.partition, at)
            while at < box.end:
                async with translated(ANSWER_S):
                    records, at = await _next(reader, box.partition, at)
                yield [record for record in records if record.offset < box.end]
        finally:
            await stopped(reader)


async def _next(reader: Reader, partition: Partition, at: int) -> tuple[Sequence[Record], int]:
    """Some records, perhaps none where there are only markers, and where to go on, which is beyond `at`.

    Waits: a client whose topic or broker is gone asks on and on.
    """
    while True:
        fetched = await reader.getmany(partition, timeout_ms=POLL_MS, max_records=READ_RECORDS)
        position = await reader.position(partition)
        if position > at:
            return fetched.get(partition, ()), position


@asynccontextmanager
async def way_back(cluster: Cluster, group: str) -> AsyncIterator["Return"]:
    """To the topics that letters come from; from here on nobody else's replay goes on.

    Raises `StartRefused` or `Retryable`.
    """
    topics = (cluster.settings.raw_topic, cluster.settings.merge_topic)
    limits = Limits(cluster, topics)
    async with at_start(cluster) as admin:
        await require_topics(admin, topics)
        await limits.read(admin)
    outlet = Outlet(cluster, limits, lambda message: message)
    back = Return(Batches(outlet, Partition(topics[0], 0), group), limits, group)
    try:
        await back.batches.start()
        yield back
    finally:
        await back.close()


class Return:
    """The way back to the topics of letters: one transaction for a batch and the place after it."""

    def __init__(self, batches: Batches, limits: Limits, group: str) -> None:
        self.batches = batches
        self._limits = limits
        self._group = group
        self._open = False

    def fits(self, message: Message) -> bool:
        """Whether its topic takes it, with the headers it has now."""
        batch = self.batches.producer.create_batch()
        batch.append(
            timestamp=message.timestamp,
            key=message.key,
            value=message.value,
            headers=list(message.headers),
        )
        return bool(batch.size() <= self._limits.max_bytes(message.topic))

    async def send(self, messages: Sequence[Message], box: Box, place: Place) -> None:
        """All of them and the place, or nothing; raises `Retryable`, `Fenced`, `Stopped` or `StartRefused`."""
        metadata = to_metadata(place, box.topic_id)
        if len(metadata) > LARGEST:
            raise StartRefused(
                f"what is left out lies in too many places of {box.partition.topic}/{box.partition.partition}"
                " to be remembered: choose more letters at once, for instance without --error or --limit, and"
                " raise max.message.bytes of a topic that letters do not fit into"
            )
        packed = [
            self.batches.packed([message for message in messages if message.topic == topic], topic)
            for topic in self._limits.topics
        ]
        producer = self.batches.producer
        async with self.batches.step():
            self._open = True
            await self.batches.begin()
            for part in packed:
                await self.batches.send(part)
            offsets = {box.partition: OffsetAndMetadata(place.next, metadata)}
            await producer.send_offsets_to_transaction(offsets, self._group)
            await producer.commit_transaction()
            self._open = False

    async def close(self) -> None:
        """Aborts what is open."""
        if self._open:
            await self.batches.abort()
        await self.batches.discard()
