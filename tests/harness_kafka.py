"""Writing and reading topics as producers and readers do."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from processor.io.clock import now_ms

PATIENCE_S = 30.0
"""Without a record, before a reader gives up."""


@dataclass(frozen=True)
class Message:
    """What a producer can set; None leaves it to Kafka.  `timestamp` is milliseconds since 1970."""

    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def hour_ago() -> int:
    """A time, in whole seconds, of records that Kafka keeps: older ones than their topic keeps it may delete at any moment."""
    return now_ms() // 1000 * 1000 - 3_600_000


async def produce(bootstrap: str, topic: str, messages: Iterable[Message]) -> list[tuple[int, int]]:
    """Partition and offset of each message, in the order given, once all are acknowledged."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, max_batch_size=1 << 19, linger_ms=5
    )
    await producer.start()
    try:
        sent = [
            await producer.send(
                topic,
                value=message.value,
                key=message.key,
                partition=message.partition,
                timestamp_ms=message.timestamp,
                headers=list(message.headers),
            )
            for message in messages
        ]
        return [(done.partition, done.offset) for done in [await future for future in sent]]
    finally:
        await producer.stop()


async def read_topic(
    bootstrap: str, topic: str, isolation: str = "read_committed"
) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    """Every record up to the end (read_committed: to the last stable offset), by partition and offset.

    A transaction that has just been committed may not be visible yet: poll with `until`.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return await _read_all(consumer, await _partitions(consumer, topic))
    finally:
        await consumer.stop()


async def _partitions(consumer: Any, topic: str) -> list[TopicPartition]:
    numbers = await consumer._client._wait_on_metadata(topic)
    return [TopicPartition(topic, number) for number in sorted(numbers)]


async def _read_all(consumer: Any, partitions: list[TopicPartition]) -> list[Any]:
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    await consumer.seek_to_beginning(*partitions)
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S) as patience:
        # A position passes transaction markers too, which are not returned as records.
        while behind := [p for p in partitions if await consumer.position(p) < ends[p]]:
            for records in (await consumer.getmany(*behind, timeout_ms=200)).values():
                found.extend(record for record in records if record.offset < ends[_of(record)])
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _of(record: Any) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
