"""Where a reader of the live stream stands: the offset it needs next of every partition of every topic that is followed.

A position travels as the id of an event, so that a client that comes back can be told exactly what it has not had: none of
it twice, none of it left out.  It names the topics it belongs to, and it carries a checksum: what is no position of these
topics is noticed, never taken for one.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Place: TypeAlias = tuple[int, int]
"""A topic, by its number among those that are followed, and a partition."""
Lost: TypeAlias = Literal["unknown", "foreign", "expired", "ahead", "recreated"]
"""Why there is no going on from a position."""

IDENTITY = 6
"""Bytes that are the same for as long as a topic is the same one."""
NO_TOPIC = bytes(IDENTITY)
LONGEST = 24_000
"""Characters of a position: about 2,000 partitions."""
_VERSION = b"\x01"
_CHECKSUM = 4
_LARGEST = 2**63 - 1


class Topic(Struct, frozen=True):
    """A topic that is followed, `NO_TOPIC` without partitions where it does not exist."""

    identity: bytes
    nexts: tuple[int, ...]
    """By partition, the offset that is read next."""


class Sent(Struct, frozen=True):
    """Of the record that is next in a partition, how many of its events were already sent."""

    place: Place
    events: int


class Position(Struct, frozen=True):
    """Everything before it has been sent."""

    topics: tuple[Topic, ...]
    sent: Sent | None = None

    def next(self, place: Place) -> int:
        """The offset needed next there; 0 of a partition it does not know, which is newer than it."""
        topic, partition = place
        nexts = self.topics[topic].nexts
        return nexts[partition] if partition < len(nexts) else 0

    @property
    def places(self) -> Sequence[Place]:
        """Every partition it knows."""
        return [(t, p) for t, topic in enumerate(self.topics) for p in range(len(topic.nexts))]


def advanced(position: Position, place: Place, offset: int, events: int = 0) -> Position:
    """The position with another next offset in one partition it knows, of which so many events are sent."""
    number, partition = place
    topics = [*position.topics]
    nexts = [*topics[number].nexts]
    nexts[partition] = offset
    topics[number] = Topic(topics[number].identity, tuple(nexts))
    return Position(tuple(topics), Sent(place, events) if events else None)


def behind(position: Position, target: Position) -> Mapping[Place, tuple[int, int]]:
    """What is between the two: by partition the first offset and the one after the last."""
    ranges = {place: (position.next(place), target.next(place)) for place in target.places}
    return {place: (first, after) for place, (first, after) in ranges.items() if first < after}


def ahead(position: Position, target: Position) -> Mapping[Place, int]:
    """Where the position is past the target: by partition the offset the target has yet to reach."""
    needed = {place: position.next(place) for place in position.places}
    if position.sent:
        needed[position.sent.place] += 1
    return {place: offset for place, offset in needed.items() if offset > target.next(place)}


def adopted(position: Position, target: Position) -> "Position | Lost":
    """The position with every partition of the target, where it is one of the target's topics."""
    if len(position.topics) != len(target.topics):
        return "foreign"
    topics = []
    for mine, now in zip(position.topics, target.topics, strict=True):
        if mine.nexts and mine.identity != now.identity:
            return "foreign"
        if len(mine.nexts) > len(now.nexts):
            return "ahead"  # whoever gave it knows partitions that are not known here yet
        more = (0,) * (len(now.nexts) - len(mine.nexts))
        topics.append(Topic(now.identity, mine.nexts + more))
    return Position(tuple(topics), position.sent)


def followed(position: Position, topics: Sequence[Topic]) -> tuple[Position, bool]:
    """The position in topics as they are now, each with the first offsets of its partitions; whether one is another topic.

    Partitions that are new are read from their first record on, and so is a topic that was created again.  One that is gone
    keeps its place: it may come back.
    """
    merged, recreated = [], False
    for old, new in zip(position.topics, topics, strict=True):
        if old.nexts and new.nexts and old.identity != new.identity:
            recreated = True
            merged.append(new)
        elif len(new.nexts) > len(old.nexts):
            merged.append(Topic(new.identity, old.nexts + new.nexts[len(old.nexts) :]))
        else:
            merged.append(old)
    return Position(tuple(merged), None), recreated


def encode(position: Position) -> str:
    """As text that may stand in a header and in a query."""
    parts = [_VERSION, _varint(len(position.topics))]
    for topic in position.topics:
        parts.append(topic.identity)
        parts.append(_varint(len(topic.nexts)))
        parts.extend(map(_varint, topic.nexts))
    if position.sent:
        parts.extend(map(_varint, (position.sent.events, *position.sent.place)))
    else:
        parts.append(_varint(0))
    data = b"".join(parts)
    data += binascii.crc32(data).to_bytes(_CHECKSUM)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> Position | None:
    """None for anything that `encode` has not made."""
    if len(text) > LONGEST:
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if body[:1] != _VERSION or binascii.crc32(body).to_bytes(_CHECKSUM) != checksum:
        return None
    try:
        return _Reader(body).position()
    except (IndexError, ValueError):
        return None


class _Reader:
    """Takes a position's bytes from the front; raises IndexError or ValueError where they are none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(_VERSION)

    def position(self) -> Position:
        topics = tuple(self._topic() for _ in range(self._size()))
        events = self._varint()
        sent = Sent((self._varint(), self._varint()), events) if events else None
        if self._at != len(self._data):
            raise ValueError
        if sent and sent.place not in Position(topics).places:
            raise ValueError
        return Position(topics, sent)

    def _topic(self) -> Topic:
        identity = self._data[self._at : self._at + IDENTITY]
        self._at += IDENTITY
        return Topic(identity, tuple(self._varint() for _ in range(self._size())))

    def _size(self) -> int:
        size = self._varint()
        if size > len(self._data):
            raise ValueError
        return size

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follow
                break
            shift += 7
        if value > _LARGEST:
            raise ValueError
        return value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
