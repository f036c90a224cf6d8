"""Reads record batches as aiokafka does, header names that are no UTF-8 included, into records that cost less to make and to hold.

Kafka lets such names in.  aiokafka raises for the whole fetch instead, loses what came before in it, and
raises again at the next: one record would hold up its partition for ever.  Here its bad bytes become
``\\xff``, and it is a record like any other.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, SupportsIndex, overload
from weakref import WeakSet

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from msgspec import Struct

from processor.io.kafka_compressed import LONGEST, plain, unread

HELD = 8 << 20
"""Bytes of records out of compressed batches that are handed over at once; the last one may exceed it."""
RECORD_BYTES = 512
"""What a record weighs beside what it holds."""
_LENGTH = struct.Struct(">8xi")


def install() -> None:
    """From here on every consumer of this process reads so: keys and values are bytes, whatever deserializer it was given."""
    fetcher.MemoryRecords = Fetched
    fetcher.PartitionRecords = Records
    fetcher.FetchResult = Result


class Read(Struct, gc=False):
    """A record that was read, in place of aiokafka's ``ConsumerRecord``: in no cycle, so the garbage collector need not look at it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds."""
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    @property
    def checksum(self) -> None:
        """Records of today's format have none."""

    @property
    def serialized_key_size(self) -> int:
        """In bytes; -1 where there is none."""
        return -1 if self.key is None else len(self.key)

    @property
    def serialized_value_size(self) -> int:
        """In bytes; -1 where there is none."""
        return -1 if self.value is None else len(self.value)


class Records(PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """What was fetched of a partition, record by record, for half of what making them costs aiokafka.

    A fetch of a few KB may become hundreds of MB.  An iteration ends at `HELD`, of all partitions that are read `together`, and
    aiokafka fetches again what is left: others come before it then.  Where one is broken off within a batch, that stays as it is read, unless those that stay so in this process are more than `LONGEST` together:
    then it is decompressed again when it is read on.
    """

    _records: "Fetched"
    _records_iterator: Iterator[Read]

    def __iter__(self) -> Iterator[Read]:
        _BROKEN_OFF.discard(self)
        fetched, room = self._records, _ROOM.get() or _Room()
        try:
            for record in self._records_iterator:
                yield record
                if fetched.grown:
                    room.left -= _weight(record)
                    if room.left <= 0:
                        break
        except GeneratorExit:
            self._break_off()
            raise

    def close(self) -> None:
        """Nothing is read any more.  What is read refers to who reads it, so it would stay until garbage is collected."""
        self._records_iterator = iter(())

    def _break_off(self) -> None:
        grown = self._records.grown
        kept = sum(other._records.grown for other in _BROKEN_OFF)  # noqa: SLF001 - it is its own class
        if kept and grown and kept + grown > LONGEST:
            self._records = self._records.rest()
            self._records_iterator = self._unpack_records()
        elif grown:
            _BROKEN_OFF.add(self)

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Read:
        return Read(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp,
            record.timestamp_type,
            record.key,
            record.value,
            tuple(record.headers),
        )


class Result(FetchResult):  # type: ignore[misc]
    """What is handed over of a partition until it is fetched again."""

    def __init__(self, tp: TopicPartition, *, partition_records: Records, **more: Any) -> None:
        super().__init__(tp, partition_records=partition_records, **more)
        self._read = partition_records

    def __del__(self) -> None:
        self._read.close()

    def getall(self, max_records: int | None = None) -> list[Read]:
        """Nothing, and all is left for the next time, where what came of other partitions leaves no room."""
        room = _ROOM.get()
        if room is not None and room.left <= 0:
            return []
        found: list[Read] = super().getall(max_records)
        return found


class _Room:
    """For what is handed over at once."""

    def __init__(self) -> None:
        self.left = HELD


_ROOM: ContextVar[_Room | None] = ContextVar("_ROOM", default=None)


@contextmanager
def together() -> Iterator[None]:
    """What is read within it, of whatever partitions, is handed over at once."""
    token = _ROOM.set(_Room())
    try:
        yield
    finally:
        _ROOM.reset(token)


_BROKEN_OFF: WeakSet[Records] = WeakSet()
"""Those that keep a batch without compression until they are read on."""


class Fetched:
    """What was fetched of a partition, in place of aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._begin = self._at = 0
        self._records = MemoryRecords(data)
        self.grown = 0
        """Bytes of the batch that is being read, where it was compressed."""
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> "Batch":
        """The next one; there is one."""
        self._begin = self._at
        self._at += _LENGTH.size + _LENGTH.unpack_from(self._data, self._begin)[0]
        self.grown = 0
        data = memoryview(self._data)[self._begin : self._at]
        return Batch(self, self._records.next_batch(), data)

    def rest(self) -> "Fetched":
        """From the batch on that is being read, with nothing decompressed."""
        return Fetched(self._data[self._begin :])


class Batch:
    """aiokafka's batch, decompressed within bounds; aiokafka's own, slower reader takes over where the fast one stumbles."""

    def __init__(self, fetched: Fetched, batch: Any, data: memoryview) -> None:
        self._fetched = fetched
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._batch, DefaultRecordBatch) and self._batch.compression_type:
            found = plain(self._data, self._batch.compression_type)
            if found is None:
                self._fetched.grown = len(self._data)  # it may tell of millions of records
                yield from unread(self._batch, self._data)
                return
            self._batch, self._data = MemoryRecords(found).next_batch(), memoryview(found)
            self._fetched.grown = len(found)
        read = 0
        try:
            for record in self._batch:
                read += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(_lenient(self._data), read, None)


def _weight(record: Read) -> int:
    weight = RECORD_BYTES + len(record.value or b"") + len(record.key or b"")
    for name, held in record.headers:
        weight += len(name) + len(held or b"")
    return weight


def _lenient(data: memoryview) -> Iterator[Any]:
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()  # noqa: SLF001 - the buffer it fills is what has to be lenient
    batch._buffer = _Lenient(batch._buffer)  # noqa: SLF001
    return iter(batch)


class _Lenient(bytearray):
    """Bytes of which every part can be decoded."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> bytearray: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> int | bytearray:
        found = super().__getitem__(index)
        return found if isinstance(found, int) else _Lenient(found)

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
