"""Packing: which partition a message goes to, in which batch, and what becomes of one that is too large."""

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from processor.failures import Stopped
from processor.io.kafka import Partition
from processor.io.kafka_batches import Packing, pack, partition_of
from processor.pure.types import Message

BATCH_BYTES = 1_000
LIMITS = {"out": 1_000, "dead": 2_000}


def message(
    value: bytes, key: bytes | None = b"k", partition: int | None = 1, topic: str = "out"
) -> Message:
    """A message with a header and a timestamp."""
    return Message(topic, key, value, (("h", b"x"),), 1_700_000_000_000, partition)


def packing(partitions: int = 4, letter: bytes = b"letter") -> Packing:
    """Batches of 1,000 bytes from an input of 4 partitions; letters go to ``dead``."""
    return Packing(
        input_partitions=4,
        partitions=lambda _: partitions,
        max_bytes=LIMITS.__getitem__,
        builder=lambda: BatchBuilder(BATCH_BYTES, 0, is_transactional=1),
        too_large=lambda m: m if m.topic == "dead" else message(letter, topic="dead"),
    )


def unpacked(batches: object) -> list[bytes]:
    """The values in batches, in order."""
    values = []
    for batch in batches:  # type: ignore[attr-defined]
        records = MemoryRecords(bytes(batch._build()))
        while records.has_next():
            values += [record.value for record in records.next_batch()]
    return values


@pytest.mark.parametrize(
    ("key", "partitions", "expected"),
    [
        # As org.apache.kafka.common.utils.Utils.murmur2, made positive.
        (b"21", 1000, (-973932308 & 0x7FFF_FFFF) % 1000),
        (b"foobar", 1000, (-790332482 & 0x7FFF_FFFF) % 1000),
        (b"a-little-bit-long-string", 1000, (-985981536 & 0x7FFF_FFFF) % 1000),
    ],
)
def test_a_key_has_the_partition_that_java_gives_it(
    key: bytes, partitions: int, expected: int
) -> None:
    """Consumers may rely on co-partitioning."""
    assert partition_of(key, partitions) == expected


@pytest.mark.parametrize(
    ("key", "hint", "partitions", "expected"),
    [
        (b"k", 3, 4, 3),
        (b"k", 3, 6, partition_of(b"k", 6)),
        (b"k", None, 4, partition_of(b"k", 4)),
        (None, 3, 4, 3),
        (None, 3, 2, 1),
        (None, None, 4, partition_of(b"", 4)),
    ],
)
def test_the_input_partition_is_kept_where_the_number_of_partitions_is_the_same(
    key: bytes | None, hint: int | None, partitions: int, expected: int
) -> None:
    """Else the key decides; without a key the input partition does, as far as it goes."""
    for _ in range(2):  # the second time from memory
        packed = pack([message(b"a", key, hint), message(b"b", key, hint)], packing(partitions))
        assert {p: unpacked(b) for p, b in packed.items()} == {
            Partition("out", expected): [b"a", b"b"]
        }


def test_batches_stay_within_their_size_and_keep_the_order() -> None:
    """However many it takes."""
    values = [b"%03d" % n + b"." * 297 for n in range(10)]
    [batches] = pack([message(v) for v in values], packing()).values()
    assert [batch.record_count() for batch in batches] == [2] * 5
    assert all(batch.size() <= BATCH_BYTES for batch in batches)
    assert unpacked(batches) == values


def test_a_message_too_large_for_its_topic_is_replaced_and_its_neighbours_stay() -> None:
    """A whole batch counts, so a single record's framing does too."""
    values = [b"before", b"x" * 950, b"after"]
    packed = pack([message(v) for v in values], packing())
    assert unpacked(packed[Partition("out", 1)]) == [b"before", b"after"]
    assert unpacked(packed[Partition("dead", 1)]) == [b"letter"]


def test_a_message_that_fits_alone_is_sent_alone() -> None:
    """The limit itself is allowed."""
    empty = BatchBuilder(BATCH_BYTES, 0)
    empty.append(timestamp=1, key=b"k", value=b"x" * 800, headers=[("h", b"x")])
    fits = b"x" * (800 + LIMITS["out"] - empty.size())
    assert list(pack([message(fits)], packing())) == [Partition("out", 1)]
    assert list(pack([message(fits + b"x")], packing())) == [Partition("dead", 1)]


@pytest.mark.parametrize("refused", [message(b"x" * 3_000, topic="dead"), message(b"x" * 3_000)])
def test_a_dead_letter_that_does_not_fit_stops_the_lane(refused: Message) -> None:
    """A bad message is never skipped."""
    with pytest.raises(Stopped, match="does not fit into dead"):
        pack([refused], packing(letter=b"x" * 3_000))


def test_nothing_to_publish_is_no_batch() -> None:
    """An outcome may be an offset alone."""
    assert pack([], packing()) == {}
