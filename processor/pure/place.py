"""How far a partition of dead letters is replayed: an offset, and what is done beyond it.

Letters are chosen by what they say, so those that are done have others between them.  What is done is kept as ranges of offsets,
and a range goes on over offsets that hold no letter: all done is one range, whatever lies between.  Where the ranges are too many to
be kept, they go on over letters that can never go back, too.
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
_ROOM = LARGEST - 20
"""For the ranges, beside the mark and the topic's identity."""
_VARINT = 0x80


class Place(Struct, frozen=True):
    """Every letter below `next` is done, and those in `done`, ranges [first, end) above it, ascending and apart; or can never go back."""

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
        self._exact = _Ranges(place.next)
        self._wide = _Ranges(place.next)
        """Over what can never go back."""
        self._seen = place.next
        """Everything below was passed."""

    def is_done(self, offset: int) -> bool:
        """Whether it was done before this walk."""
        return self._before.has(offset)

    def done(self, offset: int) -> None:
        """The letter at the offset is done, by this walk or before."""
        self._exact.add(offset)
        self._wide.add(offset)
        self._seen = offset + 1

    def left(self, offset: int) -> None:
        """The letter at the offset is not, and may be another time."""
        self._exact.end()
        self._wide.end()
        self._seen = offset + 1

    def hopeless(self, offset: int) -> None:
        """The letter at the offset can never go back."""
        self._exact.end()
        self._seen = offset + 1

    def place(self) -> Place:
        """What is done now: passed or not."""
        exact = self._place(self._exact)
        return exact if len(_packed(exact)) <= _ROOM else self._place(self._wide)

    def _place(self, passed: "_Ranges") -> Place:
        beyond = [(max(first, self._seen), end) for first, end in self._before.done]
        ranges = list(_joined([*passed.ranges, *((a, b) for a, b in beyond if a < b)]))
        return Place(ranges[0][1], tuple(ranges[1:]))


class _Ranges:
    """What is done of the offsets that were passed; the first range begins at 0."""

    def __init__(self, end: int) -> None:
        self.ranges = [(0, end)]
        self._unbroken = True

    def add(self, offset: int) -> None:
        if self._unbroken:
            self.ranges[-1] = (self.ranges[-1][0], offset + 1)
        else:
            self.ranges.append((offset, offset + 1))
        self._unbroken = True

    def end(self) -> None:
        self._unbroken = False


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
    return f"{_MARK}:{topic}:{_packed(place)}"


def _packed(place: Place) -> str:
    at, numbers = place.next, bytearray()
    for first, end in place.done:
        numbers += _varint(first - at) + _varint(end - first)
        at = end
    return base64.b64encode(zlib.compress(bytes(numbers), 9)).decode() if numbers else ""


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
