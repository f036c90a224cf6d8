"""How far a partition of dead letters is replayed: an offset, and what is done beyond it.

Letters are chosen by what they say, so those that are done have others between them.  What is done is kept as ranges of offsets,
and a range goes on over offsets that hold no letter: all done is one range, whatever lies between.  Letters lie in piles, and a range
of one goes on over the letters of others: no number of those, which may never go back, makes the ranges too many to be kept.
"""

import base64
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import TypeAlias

import msgspec
from msgspec import Struct

LARGEST = 4_000
"""Characters that an offset's metadata may have: Kafka takes 4,096."""
EVERY = "*"
"""Stands for all piles."""
_MARK = "2"
_ROOM = LARGEST - 20
"""For the ranges, beside the mark and the topic's identity."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""[first, end), ascending and apart."""


class Place(Struct, frozen=True):
    """Every letter below `next` is done, and above it those of a pile that are in its ranges, or in those of `EVERY`."""

    next: int = 0
    done: Mapping[str, Ranges] = {}

    def has(self, offset: int, pile: str) -> bool:
        """Whether the letter of that pile at an offset is done."""
        return offset < self.next or any(
            _holds(self.done.get(name, ()), offset) for name in (pile, EVERY)
        )


def _holds(ranges: Ranges, offset: int) -> bool:
    below = bisect_right(ranges, offset, key=lambda reach: reach[0])
    return below > 0 and offset < ranges[below - 1][1]


class Walk:
    """Goes through the letters of a partition in order, from `Place.next` on, and tells what is done by then."""

    def __init__(self, place: Place) -> None:
        self._before = place
        self._every = _Ranges(place.next)
        self._piles: dict[str, _Ranges] = defaultdict(lambda: _Ranges(place.next))
        self._seen = place.next
        """Everything below was passed."""

    def is_done(self, offset: int, pile: str) -> bool:
        """Whether it was done before this walk."""
        return self._before.has(offset, pile)

    def done(self, offset: int, pile: str) -> None:
        """The letter at the offset is done, by this walk or before."""
        self._every.add(offset)
        self._piles[pile].add(offset)
        self._seen = offset + 1

    def left(self, offset: int, pile: str) -> None:
        """The letter at the offset is not."""
        self._every.end()
        self._piles[pile].end()
        self._seen = offset + 1

    def place(self) -> Place:
        """What is done now, passed or not; kept by piles unless that is too long."""
        piles = self._place({pile: passed.ranges for pile, passed in self._piles.items()})
        return piles if len(_packed(piles)) <= _ROOM else self._place({EVERY: self._every.ranges})

    def _place(self, passed: Mapping[str, Ranges]) -> Place:
        at = next(_joined(self._every.ranges, self._beyond(EVERY)))[1]
        kept = {
            pile: [
                (max(first, at), end)
                for first, end in _joined(passed.get(pile, ()), self._beyond(pile))
                if end > at
            ]
            for pile in dict.fromkeys((*passed, *self._before.done))
        }
        return Place(at, {pile: tuple(ranges) for pile, ranges in kept.items() if ranges})

    def _beyond(self, pile: str) -> Ranges:
        before = self._before.done.get(pile, ())
        return [(max(first, self._seen), end) for first, end in before if end > self._seen]


class _Ranges:
    """What is done of the offsets that were passed; the first range begins at 0 and may be empty."""

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


def _joined(*ranges: Ranges) -> Iterator[tuple[int, int]]:
    """One after the other; those that touch are one."""
    first, end = 0, 0
    for begin, until in chain(*ranges):
        if begin > end:
            yield first, end
            first = begin
        end = until
    yield first, end


def to_metadata(place: Place, topic: str) -> str:
    """The ranges as text, with the identity of their topic; longer than `LARGEST` where they are too many."""
    return f"{_MARK}:{topic}:{_packed(place)}"


def _packed(place: Place) -> str:
    numbers = {pile: _numbers(place.next, ranges) for pile, ranges in place.done.items()}
    data = msgspec.msgpack.encode(numbers)
    return base64.b64encode(zlib.compress(data, 9)).decode() if numbers else ""


def _numbers(at: int, ranges: Ranges) -> Sequence[int]:
    """Each gap, and how long the range behind it is."""
    edges = [at, *chain.from_iterable(ranges)]
    return [after - before for before, after in pairwise(edges)]


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
        return Place(offset, _unpacked(offset, packed) if packed else {})
    except (ValueError, zlib.error, msgspec.MsgspecError):
        return None


def _unpacked(offset: int, packed: str) -> Mapping[str, Ranges]:
    data = zlib.decompress(base64.b64decode(packed, validate=True))
    numbers = msgspec.msgpack.decode(data, type=dict[str, list[int]])
    edges = {pile: list(accumulate(steps, initial=offset))[1:] for pile, steps in numbers.items()}
    return {pile: tuple(zip(e[::2], e[1::2], strict=True)) for pile, e in edges.items()}
