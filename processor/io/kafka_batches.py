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
        if not routes.of(message).add(message):
            _begin(routes, message)
    targets = routes.targets.items()
    return {partition: target.batches for partition, target in targets if target.batches}


@lru_cache(maxsize=1 << 16)
def partition_of(key: bytes, partitions: int) -> int:
    """Kafka's default partition of a key."""
    return int((murmur2(key) & 0x7FFF_FFFF) % partitions)


class _Target:
    """An output partition.  Records go straight into its last batch: aiokafka's way there costs as much as they do."""

    def __init__(self) -> None:
        self.batches: list[BatchBuilder] = []

    def add(self, message: Message) -> bool:
        """False where there is no batch with room for it."""
        if not self.batches:
            return False
        batch, headers = self.batches[-1], message.headers
        number = batch._relative_offset  # noqa: SLF001
        added = batch._builder.append(  # noqa: SLF001
            number,
            message.timestamp,
            message.key,
            message.value,
            headers if type(headers) is list else list(headers),
        )
        if added is None:
            return False
        batch._relative_offset = number + 1  # noqa: SLF001
        return True


class _Routes:
    """The targets, most of them found without asking for their partitions again."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing
        self.targets: dict[Partition, _Target] = {}
        self._same: dict[tuple[str, int | None], _Target] = {}
        """Of topics with as many partitions as the input."""

    def of(self, message: Message) -> _Target:
        """Where the message goes."""
        return self._same.get((message.topic, message.partition)) or self._find(message)

    def _find(self, message: Message) -> _Target:
        topic, hint, key = message.topic, message.partition, message.key
        count = self.packing.partitions(topic)
        same = count == self.packing.input_partitions
        if hint is None or not (same or key is None):
            return self._at(Partition(topic, partition_of(key or b"", count)))
        target = self._at(Partition(topic, hint % count))
        if same:
            self._same[topic, hint] = target
        return target

    def _at(self, partition: Partition) -> _Target:
        return self.targets.setdefault(partition, _Target())


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
    headers = list(message.headers)
    # A batch takes its first record whatever its size: the only one that can be too large.
    batch.append(timestamp=message.timestamp, key=message.key, value=message.value, headers=headers)
    if batch.size() > routes.packing.max_bytes(message.topic):
        return False
    routes.of(message).batches.append(batch)
    return True
