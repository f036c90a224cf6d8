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
    routes = _Routes(packing)
    for message in messages:
        batches = routes.of(message)
        if not (batches and _append(batches[-1], message)):
            _begin(routes, message)
    return {target: batches for target, batches in routes.packed.items() if batches}


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's default partition of a key."""
    return int((murmur2(key) & 0x7FFF_FFFF) % partitions)


class _Routes:
    """The batches of each target, found without asking for the target again."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self.packed: dict[Partition, list[BatchBuilder]] = {}
        self._by_hint: dict[tuple[str, int], list[BatchBuilder]] = {}
        self._hashed: set[str] = set()
        """Topics whose number of partitions is another one: the key decides there."""

    def of(self, message: Message) -> list[BatchBuilder]:
        """The batches of the message's target so far."""
        topic, hint = message.topic, message.partition
        if hint is None or (topic in self._hashed and message.key is not None):
            return self._find(message)
        found = self._by_hint.get((topic, hint))
        return self._find(message) if found is None else found

    def _find(self, message: Message) -> list[BatchBuilder]:
        topic, hint, key = message.topic, message.partition, message.key
        count = self.packing.partitions(topic)
        if count != self.packing.input_partitions:
            self._hashed.add(topic)
        if hint is not None and (topic not in self._hashed or key is None):
            batches = self.packed.setdefault(Partition(topic, hint % count), [])
            self._by_hint[topic, hint] = batches
            return batches
        return self.packed.setdefault(Partition(topic, partition_of(key or b"", count)), [])


def _append(batch: BatchBuilder, message: Message) -> bool:
    headers = message.headers
    added = batch.append(
        timestamp=message.timestamp,
        key=message.key,
        value=message.value,
        headers=headers if type(headers) is list else list(headers),
    )
    return added is not None


def _begin(routes: _Routes, message: Message) -> None:
    """A new batch begins with the message, or with what is sent instead of it."""
    if _begun(routes, message):
        return
    instead = routes.packing.too_large(message)
    if instead.topic == message.topic or not _begun(routes, instead):
        size = len(instead.value or b"")
        raise Stopped(
            f"a message of {size} bytes does not fit into {instead.topic};"
            f" raise max.message.bytes of {instead.topic} and restart the worker"
        )


def _begun(routes: _Routes, message: Message) -> bool:
    batch = routes.packing.builder()
    # A batch takes its first record whatever its size: the only one that can be too large.
    _append(batch, message)
    if batch.size() > routes.packing.max_bytes(message.topic):
        return False
    routes.of(message).append(batch)
    return True
