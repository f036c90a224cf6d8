"""How far a partition of dead letters is replayed: an offset, and what is done beyond it.

Letters are chosen by what they say, so those that are done have others between them.  What is done is kept as ranges of offsets,
and a range goes on over offsets that hold no letter: all done is one range, whatever lies between.
"""

import base64
import binascii
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from msgspec import Struct

LARGEST = 4_000
"""Characters that an offset's metadata may have: Kafka takes 4,096."""
_MARK = "1"
_VARINT = 0x80


class Place(Struct, frozen=True):
    """Every letter below `next` is done, and those in `done`, ranges [first, end) above it, ascending and apart."""

    next: int = 0
    done: tuple[tuple[int, int], ...] = ()

    def has(self, offset: int) -> bool:
        """Whether the letter at an offset is done."""
        if offset < self.next:
            return True
        below = bisect_right(self.done, offset, key=lambda reach: reach[0])
        return below > 0 and offset < self.done[below - 1][1]


class Walk:
    """Goes through the letters of a partition in order, from `Place.next` on, and tells what is done by then."""

    def __init__(self, place: Place) -> None:
        self._before = place
        self._ranges = [(0, place.next)]
        self._unbroken = True
        """The last letter was done."""
        self._seen = place.next
        """Everything below was passed."""

    def is_done(self, offset: int) -> bool:
        """Whether it was done before this walk."""
        return self._before.has(offset)

    def done(self, offset: int) -> None:
        """The letter at the offset is done, by this walk or before."""
        if self._unbroken:
            self._ranges[-1] = (self._ranges[-1][0], offset + 1)
        else:
            self._ranges.append((offset, offset + 1))
        self._unbroken, self._seen = True, offset + 1

    def left(self, offset: int) -> None:
        """The letter at the offset is not."""
        self._unbroken, self._seen = False, offset + 1

    def place(self) -> Place:
        """What is done now: passed or not."""
        beyond = [(max(first, self._seen), end) for first, end in self._before.done]
        ranges = list(_joined([*self._ranges, *((a, b) for a, b in beyond if a < b)]))
        return Place(ranges[0][1], tuple(ranges[1:]))


def _joined(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that touch are one."""
    first, end = ranges[0]
    for begin, until in ranges[1:]:
        if begin > end:
            yield first, end
            first = begin
        end = until
    yield first, end


def to_metadata(place: Place, topic: str) -> str:
    """The ranges as text, with the identity of their topic; longer than `LARGEST` where they are too many."""
    at, numbers = place.next, bytearray()
    for first, end in place.done:
        numbers += _varint(first - at) + _varint(end - first)
        at = end
    packed = base64.b64encode(zlib.compress(bytes(numbers), 9)).decode() if numbers else ""
    return f"{_MARK}:{topic}:{packed}"


def from_metadata(offset: int, metadata: str, topic: str) -> Place | None:
    """The place that was kept; nothing is done where it is of another topic of that name.  None: it is no such text."""
    if not metadata:
        return Place(offset)
    mark, _, rest = metadata.partition(":")
    identity, _, packed = rest.partition(":")
    if mark != _MARK:
        return None
    if identity != topic:
        return Place()
    try:
        numbers = zlib.decompress(base64.b64decode(packed, validate=True)) if packed else b""
    except (binascii.Error, zlib.error):
        return None
    return Place(offset, tuple(_ranges(offset, list(_numbers(numbers)))))


def _ranges(at: int, numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    for gap, size in zip(numbers[::2], numbers[1::2], strict=True):
        yield at + gap, at + gap + size
        at += gap + size


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= _VARINT:
        out.append(number % _VARINT + _VARINT)
        number //= _VARINT
    return bytes([*out, number])


def _numbers(data: bytes) -> Iterator[int]:
    number, shift = 0, 0
    for byte in data:
        number += (byte % _VARINT) << shift
        shift += 7
        if byte < _VARINT:
            yield number
            number, shift = 0, 0
