"""Compressed record batches, decompressed into a bounded number of bytes.

A broker bounds a batch as it is compressed: a few KB may become hundreds of MB, which would end each worker in turn.
"""

import gzip
import io
import mmap
from collections.abc import Callable, Iterator
from zlib import error as BadGzip  # noqa: N812 - it has no other name

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.record.default_records import DefaultRecordBatch
from msgspec import Struct

from processor.pure.letters import UNREAD

LONGEST = 64 << 20
"""Bytes of a batch once it is decompressed."""
_HEADER = 61
_LENGTH = slice(8, 12)
_ATTRIBUTES = slice(21, 23)
_COUNT = slice(57, 61)
_BEFORE_LENGTH_ENDS = 12
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16


class Unread(Struct, frozen=True):
    """Stands for a record, as aiokafka has them."""

    offset: int
    timestamp: int
    timestamp_type: int | None
    key: None = None
    value: bytes = UNREAD
    headers: tuple[()] = ()


def plain(data: memoryview, codec: int) -> bytes | None:
    """The batch without compression; None where it is larger than `LONGEST`, or broken."""
    decompressed = _DECOMPRESSED[codec](data[_HEADER:])
    if decompressed is None:
        return None
    head = bytearray(data[:_HEADER])
    head[_LENGTH] = (_HEADER - _BEFORE_LENGTH_ENDS + len(decompressed)).to_bytes(4)
    attributes = int.from_bytes(head[_ATTRIBUTES]) & ~DefaultRecordBatch.CODEC_MASK
    head[_ATTRIBUTES] = attributes.to_bytes(2)
    return bytes(head) + decompressed


def unread(batch: DefaultRecordBatch, data: memoryview) -> Iterator[Unread]:
    """One for each record that the batch says it has."""
    end, count = batch.next_offset, int.from_bytes(data[_COUNT])
    for offset in range(max(batch.base_offset, end - count), end):
        yield Unread(offset, batch.max_timestamp, batch.timestamp_type)


def _gzip(data: memoryview) -> bytes | None:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(LONGEST + 1)
    except (OSError, EOFError, BadGzip):
        return None
    return found if len(found) <= LONGEST else None


def _into(
    decompress_into: Callable[[memoryview, mmap.mmap], int],
) -> Callable[[memoryview], bytes | None]:
    def decompressed(data: memoryview) -> bytes | None:
        with mmap.mmap(-1, LONGEST) as room:  # memory is taken as it is written
            try:
                return room[: decompress_into(data, room)]
            except cramjam.DecompressionError:
                return None

    return decompressed


def _snappy(data: memoryview) -> bytes | None:
    try:
        if sum(map(cramjam.snappy.decompress_raw_len, _blocks(data))) > LONGEST:
            return None
        found: bytes = snappy_decode(data.tobytes())
    except (cramjam.DecompressionError, ValueError):
        return None
    return found


def _blocks(data: memoryview) -> Iterator[memoryview]:
    """Of what Java writes; others write one without a frame."""
    if data[: len(_XERIAL)] != _XERIAL:
        yield data
        return
    at = _XERIAL_HEADER
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


_DECOMPRESSED: dict[int, Callable[[memoryview], bytes | None]] = {
    DefaultRecordBatch.CODEC_GZIP: _gzip,
    DefaultRecordBatch.CODEC_SNAPPY: _snappy,
    DefaultRecordBatch.CODEC_LZ4: _into(cramjam.lz4.decompress_into),
    DefaultRecordBatch.CODEC_ZSTD: _into(cramjam.zstd.decompress_into),
}
