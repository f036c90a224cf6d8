"""Messages into record batches, one list for each output partition, in order.

Which partition: the input's own where key and number of partitions are the same (its messages stay
together and in order whatever partitioner their producer used), else Kafka's default by hash of the key.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from msgspec import Struct

from processor.failures import Stopped
from processor.io.kafka import Partition
from processor.pure.types import Message

TooLarge: TypeAlias = Callable[[Message], Message]
"""What to publish instead of a message that its topic does not take: its dead letter.

A message for which there is nothing else, such as a dead letter, is returned as it is.
"""


class Packing(Struct, frozen=True):
    """What decides how messages are packed, constant for a batch."""

    input_partitions: int
    """Of the topic the batch was read from."""
    partitions: Callable[[str], int]
    """How many an output topic has."""
    max_bytes: Callable[[str], int]
    """The largest record batch an output topic takes."""
    builder: Callable[[], BatchBuilder]
    too_large: TooLarge


Packed: TypeAlias = Mapping[Partition, Sequence[BatchBuilder]]


def pack(messages: Sequence[Message], packing: Packing) -> Packed:
    """The record batches to send.

    Raises `Stopped` where a message is too large and so is what shall be sent instead of it.
    """
    packed: dict[Partition, list[BatchBuilder]] = {}
    for message in messages:
        if not _add(packed, message, packing):
            _add_instead(packed, message, packing)
    return packed


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's default partition of a key."""
    return int((murmur2(key) & 0x7FFF_FFFF) % partitions)


def _target(message: Message, packing: Packing) -> Partition:
    count = packing.partitions(message.topic)
    if message.partition is not None and (count == packing.input_partitions or message.key is None):
        return Partition(message.topic, message.partition % count)
    return Partition(message.topic, partition_of(message.key or b"", count))


def _add(packed: dict[Partition, list[BatchBuilder]], message: Message, packing: Packing) -> bool:
    """Whether the message's topic takes it."""
    target = _target(message, packing)
    batches = packed.setdefault(target, [])
    if batches and _append(batches[-1], message):
        return True
    batch = packing.builder()
    # A batch takes its first record whatever its size: the only one that can be too large.
    _append(batch, message)
    if batch.size() > packing.max_bytes(message.topic):
        return False
    batches.append(batch)
    return True


def _append(batch: BatchBuilder, message: Message) -> bool:
    added = batch.append(
        timestamp=message.timestamp,
        key=message.key,
        value=message.value,
        headers=list(message.headers),
    )
    return added is not None


def _add_instead(
    packed: dict[Partition, list[BatchBuilder]], message: Message, packing: Packing
) -> None:
    instead = packing.too_large(message)
    if instead.topic == message.topic or not _add(packed, instead, packing):
        raise Stopped(
            f"a message of {len(message.value or b'')} bytes does not fit into {instead.topic};"
            f" raise max.message.bytes of {instead.topic} and restart the worker"
        )
