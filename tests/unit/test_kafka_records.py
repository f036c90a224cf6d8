"""Header names that are no UTF-8 hold up nothing: Kafka lets them in, and so do we."""

import struct
from collections.abc import Callable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from processor.io.kafka_compressed import LONGEST
from processor.io.kafka_records import (
    HELD,
    RECORD_BYTES,
    Batch,
    Fetched,
    Records,
    Result,
    together,
)
from processor.pure.letters import UNREAD

NONE, GZIP = 0, 1
CODECS = [GZIP, 2, 3, 4]
"""gzip, snappy, lz4, zstd."""


def batch(base: int, values: list[bytes], header: bytes, compression: int = NONE) -> bytes:
    """A batch as a broker sends it; all its records have a header of that name."""
    stand_in = "h" * len(header)
    builder = DefaultRecordBatchBuilder(2, NONE, 0, -1, -1, 0, 1 << 20)
    for offset, value in enumerate(values):
        builder.append(offset, 7, b"k", value, [(stand_in, b"v")])
    built = builder.build()
    body = bytes(built[61:]).replace(stand_in.encode(), header)
    if compression == GZIP:
        from aiokafka.codec import gzip_encode  # noqa: PLC0415

        body = gzip_encode(body)
    head = bytearray(built[:61])
    struct.pack_into(">qi", head, 0, base, 49 + len(body))
    struct.pack_into(">h", head, 21, compression)
    struct.pack_into(">I", head, 17, calc_crc32c(bytes(head[21:]) + body))
    return bytes(head) + body


def read(data: bytes) -> list[Any]:
    """What a consumer gets to see of it."""
    return list(Records(TopicPartition("t", 0), Fetched(data), [], 10, None, None, True, 1))


@pytest.mark.parametrize("compression", [NONE, GZIP])
def test_a_bad_header_name_is_spelled_out_and_its_neighbours_are_as_ever(compression: int) -> None:
    """Each record once, in order, with its offset, across good and bad batches."""
    data = (
        batch(10, [b"a", b"b"], b"good", compression)
        + batch(12, [b"c", b"d"], b"\xff\xfe", compression)
        + batch(14, [b"e"], "grün".encode(), compression)
    )
    assert [(r.offset, r.value, r.key, r.headers) for r in read(data)] == [
        (10, b"a", b"k", (("good", b"v"),)),
        (11, b"b", b"k", (("good", b"v"),)),
        (12, b"c", b"k", (("\\xff\\xfe", b"v"),)),
        (13, b"d", b"k", (("\\xff\\xfe", b"v"),)),
        (14, b"e", b"k", (("grün", b"v"),)),
    ]


def test_what_was_read_before_the_bad_name_is_not_read_again() -> None:
    """The batch is one, the name only in its last record."""
    data = batch(10, [b"a", b"b"], b"hh")
    last = data.rindex(b"hh")
    spoilt = bytearray(data[:last] + b"h\xff" + data[last + 2 :])
    struct.pack_into(">I", spoilt, 17, calc_crc32c(bytes(spoilt[21:])))
    assert [(r.offset, r.headers[0][0]) for r in read(bytes(spoilt))] == [
        (10, "hh"),
        (11, "h\\xff"),
    ]


def compressed(codec: int, *values: bytes, base: int = 10) -> bytes:
    """A batch as a producer sends it."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 1 << 30)
    for offset, value in enumerate(values):
        builder.append(offset, 7 + offset, b"k", value, [("h", b"v")])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base)
    return bytes(built)


@pytest.mark.parametrize("codec", CODECS)
@given(values=st.lists(st.binary(max_size=300), min_size=1, max_size=40))
def test_compressed_batches_are_read_as_they_were_written(codec: int, values: list[bytes]) -> None:
    """By whatever codec."""
    found = read(compressed(codec, *values) + compressed(NONE, b"next", base=10 + len(values)))
    said = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in found]
    more = [*values, b"next"]
    assert [one[3] for one in said] == more
    assert said[: len(values)] == [
        (10 + n, 7 + n, b"k", value, (("h", b"v"),)) for n, value in enumerate(values)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_of_a_batch_that_grows_too_large_no_record_is_read_and_none_is_left_out(codec: int) -> None:
    """A few KB that would become 70 MB, or 64 MB in many records: each says why it is bad, and those around it are as ever."""
    for values in ([b"a", b" " * (LONGEST + 1), b"c"], [b" " * (1 << 20)] * 64):
        data = compressed(codec, *values)
        found = read(data + compressed(codec, b"next", base=10 + len(values)))
        assert len(data) < LONGEST // 16
        offsets = range(10, 10 + len(values))
        assert [(r.offset, r.value) for r in found[:-1]] == [(at, UNREAD) for at in offsets]
        assert found[-1].value == b"next"


def broken(data: bytes) -> bytes:
    """A batch that cannot be decompressed, though its checksum is right."""
    data = data[:70] + b"\xff" * 8 + data[78:]
    return data[:17] + struct.pack(">I", calc_crc32c(data[21:])) + data[21:]


@pytest.mark.parametrize("codec", CODECS)
def test_a_broken_batch_is_no_end(codec: int) -> None:
    """Brokers look into batches, but not all of what sends some is a broker."""
    found = read(broken(compressed(codec, b"a" * 300, b"b")))
    assert [(r.offset, r.value) for r in found] == [(10, UNREAD), (11, UNREAD)]


def test_a_fetch_cut_off_within_a_batch_ends_before_it() -> None:
    """As brokers may send it."""
    data = batch(10, [b"a"], b"h") + batch(11, [b"b"], b"h")[:-3]
    assert [r.offset for r in read(data)] == [10]


@pytest.mark.parametrize("data", [batch(10, [b"abc", b""], b"h"), batch(10, [b""], b"h", GZIP)])
def test_a_record_says_what_aiokafkas_own_says(data: bytes) -> None:
    """Faust reads them beside us, and knows nothing of this."""
    own = PartitionRecords(TopicPartition("t", 0), Fetched(data), [], 10, None, None, True, 1)
    for record, its in zip(read(data), own, strict=True):
        for field in fields(ConsumerRecord):
            assert getattr(record, field.name) == getattr(its, field.name)


def test_reading_goes_on_where_it_was_left() -> None:
    """A fetch is handed over in parts where it holds more than is asked for."""
    data = batch(10, [b"a", b"b"], b"h") + batch(12, [b"c"], b"h")
    records = Records(TopicPartition("t", 0), Fetched(data), [], 10, None, None, True, 1)
    assert [next(iter(records)).offset, records.next_fetch_offset] == [10, 11]
    assert [record.offset for record in records] == [11, 12]
    assert (list(records), records.next_fetch_offset) == ([], 13)


class Position:
    """Of a consumer in a partition."""

    paused = False

    def __init__(self) -> None:
        self.position = 0

    def consumed_to(self, offset: int) -> None:
        """As aiokafka tells how far it is."""
        self.position = offset


class Reading:
    """Stands in a partition of batches, each of as many records, and fetches as a consumer does: whole batches from where it stands."""

    def __init__(self, batches: list[bytes], each: int) -> None:
        self.batches, self.each = batches, each
        self.state = Position()
        self.fetched = self.fetch()

    def fetch(self) -> Result:
        """All there is from where it stands."""
        data = b"".join(self.batches[self.state.position // self.each :])
        topic, at = TopicPartition("t", 0), self.state.position
        records = Records(topic, self.of(data), [], at, None, None, True, 1)
        state = self.state
        assigned = SimpleNamespace(active=True, state_value=lambda _: state)
        return Result(topic, assignment=assigned, partition_records=records, backoff=0)

    def of(self, data: bytes) -> Fetched:
        """What came."""
        return Fetched(data)

    def getall(self, most: int) -> list[Any]:
        """What is handed over at once."""
        found: list[Any] = self.fetched.getall(most)
        if not self.fetched.has_more():
            self.fetched = self.fetch()
        return found


MEGABYTE = b" " * (1 << 20)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("most", [2, 4_000])
def test_what_a_few_batches_become_is_handed_over_a_bounded_part_at_a_time(
    codec: int, most: int
) -> None:
    """However many records are asked for: each comes once, in order, and what was left of a fetch comes with the next."""
    batches = [compressed(codec, *[MEGABYTE] * 3, base=3 * n) for n in range(12)]
    reading, offsets = Reading(batches, 3), list[int]()
    while len(offsets) < 36:
        found = reading.getall(most)
        offsets += [record.offset for record in found]
        assert sum(len(record.value) for record in found) <= HELD + len(MEGABYTE)
        assert found
    assert offsets == list(range(36))
    assert reading.getall(most) == []


def test_a_record_larger_than_what_is_handed_over_at_once_comes_alone() -> None:
    """It holds up nothing."""
    values = [b"a", b" " * (HELD + 1), b"c"]
    reading = Reading([compressed(4, *values, base=0)], 3)
    assert [[len(r.value) for r in reading.getall(9)] for _ in range(3)] == [[1, HELD + 1], [1], []]


class Counted(Fetched):
    """Notes each batch that is decompressed."""

    def __init__(self, data: bytes, noted: list[int]) -> None:
        super().__init__(data)
        self._noted = noted

    def next_batch(self) -> Batch:
        self._noted.append(self._at)
        return super().next_batch()

    def rest(self) -> Fetched:
        return Counted(super().rest()._data, self._noted)


class Counting(Reading):
    """Counts what it takes to read one batch: fetches, and how often it is decompressed."""

    def __init__(self, data: bytes, each: int) -> None:
        self.fetches, self.decompressed = 0, list[int]()
        super().__init__([data], each)

    def fetch(self) -> Result:
        self.fetches += 1
        return super().fetch()

    def of(self, data: bytes) -> Fetched:
        return Counted(data, self.decompressed)


SMALL, MANY = b" " * 180, 60_000
"""Together more than what is handed over at once."""
MOST = 4_000


def test_a_large_batch_of_small_records_is_fetched_and_decompressed_once() -> None:
    """However often its reading is broken off: skipping what was read would cost as much as the batch, each time."""
    reading = Counting(compressed(4, *[SMALL] * MANY, base=0), MANY)
    offsets = list[int]()
    while found := reading.getall(MOST):
        offsets += [record.offset for record in found]
    assert offsets == list(range(MANY))
    assert (reading.fetches, reading.decompressed) == (2, [0])


def test_what_stays_decompressed_of_all_partitions_is_bounded_and_the_rest_is_not_fetched_again() -> (
    None
):
    """Those beyond it are decompressed once for each part of them, and all are read whole."""
    data = compressed(4, *[SMALL] * MANY, base=0)
    readings = [Counting(data, MANY) for _ in range(8)]
    for _ in range(3):
        for reading in readings:
            assert len(reading.getall(MOST)) == MOST
    kept = [reading for reading in readings if len(reading.decompressed) == 1]
    grown = kept[0].fetched._partition_records._records.grown
    assert len(kept) == LONGEST // grown
    assert all(len(reading.decompressed) == 3 for reading in readings if reading not in kept)
    assert all(reading.fetches == 1 for reading in readings)
    for reading in (kept[0], readings[-1]):
        offsets = list(range(3 * MOST))
        while found := reading.getall(MOST):
            offsets += [record.offset for record in found]
        assert offsets == list(range(MANY))


def test_what_nobody_reads_on_leaves_its_place() -> None:
    """After a rebalance, for one: nothing of it is kept, or it would be fetched again and again for others."""
    data = compressed(4, *[SMALL] * MANY, base=0)
    former = [Counting(data, MANY) for _ in range(8)]
    for reading in former:
        reading.getall(MOST)
    del reading
    former.clear()
    reading = Counting(data, MANY)
    for _ in range(3):
        reading.getall(MOST)
    assert reading.decompressed == [0]


def test_what_many_partitions_hand_over_at_once_is_bounded_in_all_and_each_has_its_turn() -> None:
    """Whoever came too late keeps what it has for the next time, and is not fetched again for that; who used it up comes last then."""
    data = compressed(4, *[MEGABYTE] * 12, base=0)
    queue, order = [Counting(data, 12) for _ in range(12)], list[Counting]()
    readings = list(queue)
    while queue:
        sizes = list[int]()
        with together():
            for reading in list(queue):
                found = reading.fetched.getall(MOST)
                sizes += [len(record.value or b"") for record in found]
                if found:
                    order.append(reading)
                if not reading.fetched.has_more():
                    queue.remove(reading)
                    if reading.state.position < 12:
                        reading.fetched = reading.fetch()
                        queue.append(reading)
        assert HELD - len(MEGABYTE) <= sum(sizes) <= HELD + len(MEGABYTE)
    assert set(order[:12]) == set(readings)
    assert all(reading.state.position == 12 for reading in readings)
    assert sum(reading.fetches for reading in readings) <= len(order)


@pytest.mark.parametrize("become", [bytes, broken])
def test_records_that_hold_nothing_take_room_too(become: Callable[[bytes], bytes]) -> None:
    """As they do in memory; also those of which nothing is known but how many they are."""
    reading = Reading([become(compressed(4, *[b""] * 20_000, base=0))], 20_000)
    assert 0 < len(reading.getall(20_000)) * RECORD_BYTES <= HELD
