"""What the API hands to Kafka: acknowledged by all in-sync replicas before anybody is told.

All requests share a producer.  After any error it is replaced, since aiokafka's recovers from few; what others have under way with
it gets a moment to end.  No call takes longer than `SEND_S` and all of them hold no more than `HELD_BYTES`, whatever Kafka does.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from msgspec import Struct
from msgspec.structs import replace

from processor.failures import Failure, Fenced, Retryable, Stopped
from processor.io.kafka import Cluster, translated
from processor.io.kafka_producer import Live
from processor.io.kafka_topics import Limits

SEND_S = 8.0
"""Of a call, the start of a producer included."""
REQUEST_MS = 5_000
"""A request to a broker that does not answer fails by itself, before the call that waits for it does."""
LIMITS_BELIEVED_S = 5.0
HELD_BYTES = 64 << 20
"""Of records that wait for Kafka; a record counts as its key, its value and what holds them."""
_BATCH = 512 << 10
_EMPTY = DefaultRecordBatchBuilder(
    2,
    0,
    is_transactional=0,
    producer_id=-1,
    producer_epoch=-1,
    base_sequence=0,
    batch_size=0,
)


class Sending(Struct, frozen=True):
    """A record to write; `timestamp` is milliseconds."""

    topic: str
    key: bytes
    value: bytes
    timestamp: int
    headers: Sequence[tuple[str, bytes]] = ()


class Place(Struct, frozen=True):
    """Where a record stands now, with the timestamp the topic gave it."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class TooLargeError(Failure):
    """The topic does not take a record of this size; nothing of the call is written."""

    def __init__(self, number: int, topic: str, max_bytes: int) -> None:
        super().__init__(f"record {number} is larger than the {max_bytes} bytes {topic} takes")
        self.number = number
        """Which record of the call, from 0."""
        self.max_bytes = max_bytes


class Producing:
    """Writes records; starts its producer when it is first needed.

    Every call raises `Retryable` where Kafka is not as it should be.
    """

    def __init__(self, cluster: Cluster) -> None:
        settings = cluster.settings
        self._cluster = Cluster(settings, replace(cluster.tuning, transaction_ms=REQUEST_MS))
        self._topics = [settings.raw_topic, settings.merge_topic]
        self._limits = Limits(self._cluster, self._topics)
        self._limits_read_at = 0.0
        self._live: Live | None = None
        self._starting: asyncio.Task[Live] | None = None
        self._held_bytes = 0
        self._ending: set[asyncio.Task[None]] = set()

    async def send(self, records: Sequence[Sending]) -> list[Place]:
        """Places in the order given, once every record is acknowledged.

        Raises `TooLargeError`, and `Retryable` where a record is not acknowledged: then it, and others of the call, may or may not be
        written, now or a moment later.
        """
        async with _within(SEND_S):
            with self._held(records):
                return await self._sent(records)

    async def fits(self, records: Sequence[Sending]) -> None:
        """Returns where the topics take records of these sizes; raises `TooLargeError` for the first they do not."""
        async with _within(SEND_S):
            await self._started()
            await self._fit(records)

    async def answers(self) -> None:
        """Returns where Kafka is there."""
        async with _within(SEND_S):
            await (await self._started()).answers()

    async def close(self) -> None:
        """Ends the producer, after a moment for what is under way."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._live is not None:
            self._replace(self._live)
        if self._ending:
            await asyncio.wait(self._ending)

    @contextmanager
    def _held(self, records: Sequence[Sending]) -> Iterator[None]:
        """While they wait for Kafka; raises `Retryable` where too much does."""
        overhead = self._cluster.tuning.record_bytes
        size = sum(len(record.key) + len(record.value) + overhead for record in records)
        if self._held_bytes and self._held_bytes + size > HELD_BYTES:
            raise Retryable("kafka", f"more than {HELD_BYTES} bytes wait to be acknowledged")
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _sent(self, records: Sequence[Sending]) -> list[Place]:
        live = await self._started()
        await self._fit(records)
        try:
            return await _written(live, records)
        except BaseException:
            self._replace(live)
            raise

    async def _started(self) -> Live:
        if self._live is not None:
            return self._live
        if self._starting is None:  # one for all that wait; it outlasts those that lose patience
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        return await asyncio.shield(self._starting)

    async def _start(self) -> Live:
        await self._read_limits()
        live = Live(self._cluster.producer(min(_BATCH, self._limits.smallest), None))
        await live.start(self._topics)
        return live

    def _start_ended(self, starting: "asyncio.Task[Live]") -> None:
        self._starting = None
        if not starting.cancelled() and starting.exception() is None:
            self._live = starting.result()

    def _replace(self, live: Live) -> None:
        """The next call starts another one."""
        if self._live is live:
            self._live = None
            ending = asyncio.create_task(live.end())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _fit(self, records: Sequence[Sending]) -> None:
        found = self._misfit(records)
        now = asyncio.get_running_loop().time()
        if found is not None and now - self._limits_read_at > LIMITS_BELIEVED_S:
            await self._read_limits()
            found = self._misfit(records)
        if found is not None:
            raise found

    def _misfit(self, records: Sequence[Sending]) -> TooLargeError | None:
        for number, record in enumerate(records):
            most = self._limits.max_bytes(record.topic)
            if _size(record) > most:
                return TooLargeError(number, record.topic, most)
        return None

    async def _read_limits(self) -> None:
        self._limits_read_at = asyncio.get_running_loop().time()  # one asks, others need not
        await self._limits.refresh()


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with translated(seconds):
            yield
    except (Fenced, Stopped) as error:
        raise Retryable("kafka", str(error)) from error


async def _written(live: Live, records: Sequence[Sending]) -> list[Place]:
    sent = await live.send(
        {
            "topic": record.topic,
            "key": record.key,
            "value": record.value,
            "timestamp_ms": record.timestamp,
            "headers": list(record.headers),
        }
        for record in records
    )
    # Of records that keep their own timestamps aiokafka knows only that of the first of their batch.
    return [
        Place(
            done.topic,
            done.partition,
            done.offset,
            record.timestamp if done.timestamp_type == 0 else done.timestamp,
        )
        for record, done in zip(records, sent, strict=True)
    ]


def _size(record: Sending) -> int:
    """Bytes of a batch of this record alone."""
    size: int = _EMPTY.size() + _EMPTY.size_in_bytes(
        0, record.timestamp, record.key, record.value, list(record.headers)
    )
    return size
