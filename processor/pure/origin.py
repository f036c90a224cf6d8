"""Where a message came from: the coordinates that name it for good, also after a replay."""

import hashlib
import re
from collections.abc import Sequence

from msgspec import Struct

from processor.pure.types import Record

TOPIC, PARTITION, OFFSET, TIMESTAMP = (
    "original-topic",
    "original-partition",
    "original-offset",
    "original-timestamp",
)
"""The headers a replay sets; `TIMESTAMP` is -1 where the original record had none."""

_TOPIC_NAME = re.compile(rb"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(rb"-?[0-9]{1,19}")
_LARGEST_PARTITION, _LARGEST_OFFSET = 2**31 - 1, 2**63 - 1


class Origin(Struct, frozen=True):
    """The place of a message in Kafka; milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None


def timestamp_of(record: Record) -> int | None:
    """The record's own timestamp, None where it has none."""
    timestamp = record.timestamp
    return None if timestamp is None or timestamp < 0 else timestamp


def origin_of(record: Record) -> Origin:
    """The original place of a replayed record (all four headers present and well-formed), else its own."""
    own = Origin(record.topic, record.partition, record.offset, timestamp_of(record))
    return replayed_from(record.headers) or own


def replayed_from(headers: Sequence[tuple[str, bytes]]) -> Origin | None:
    """The place that a replay has named; None without one."""
    return _replayed(dict(headers)) if headers else None


def derived_id(topic: str, partition: int, offset: int, timestamp: int | None) -> str:
    """The id of a message that names none: 32 hex digits, the same at every redelivery."""
    # The numbers come first, so no topic name can imitate another message's coordinates.
    known = -1 if timestamp is None or timestamp < 0 else timestamp
    place = f"{partition} {offset} {known} {topic}"
    return hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()[:32]


def _replayed(headers: dict[str, bytes]) -> Origin | None:
    topic = headers.get(TOPIC)
    partition = _number(headers.get(PARTITION), _LARGEST_PARTITION)
    offset = _number(headers.get(OFFSET), _LARGEST_OFFSET)
    timestamp = _number(headers.get(TIMESTAMP), _LARGEST_OFFSET, smallest=-1)
    if topic is None or not _TOPIC_NAME.fullmatch(topic):
        return None
    if partition is None or offset is None or timestamp is None:
        return None
    return Origin(topic.decode(), partition, offset, None if timestamp < 0 else timestamp)


def _number(digits: bytes | None, largest: int, smallest: int = 0) -> int | None:
    if digits is None or not _NUMBER.fullmatch(digits):
        return None
    number = int(digits)
    return number if smallest <= number <= largest else None
