"""What was sent where: all that the account at the end needs to know of a message, and not its text.

It may import nothing of the program it checks.  Times are milliseconds since 1970 (UTC).
"""

import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

import orjson

from processor.demo.traffic import Kind, Sample

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """Where a record is; ``topic`` is the real one."""

    topic: str
    partition: int
    offset: int


class Event(NamedTuple):
    """What a producer said."""

    org_unit: str
    lead_id: str
    id: str | None
    event_type: str
    occurred_at: int
    metadata: bytes
    """Its `digest`."""


class Merge(NamedTuple):
    """A merge as it was asked for."""

    org_unit: str
    target: str
    sources: tuple[str, ...]
    requested_by: str | None
    timestamp: int


Content: TypeAlias = Event | Merge | bytes
"""Of a bad message: the `payload_digest`."""


class Sent(NamedTuple):
    """A record that Kafka has acknowledged."""

    kind: Kind
    place: Place
    content: Content


def sent(sample: Sample, place: Place) -> Sent:
    """The entry of a sample."""
    return Sent(sample.kind, place, _content(sample))


def _content(sample: Sample) -> Content:
    if sample.kind == "bad":
        return payload_digest(sample.key, sample.value)
    fields = orjson.loads(sample.value or b"")
    if sample.kind == "merge":
        sources = tuple(dict.fromkeys(fields["source_lead_ids"]))
        asked = fields["org_unit"], fields["target_lead_id"], sources
        return Merge(*asked, fields.get("requested_by"), sample.timestamp)
    return Event(
        fields["org_unit"],
        fields["lead_id"],
        fields.get("id"),
        titled(fields["event_type"]),
        milliseconds(fields["timestamp"]),
        digest(fields["metadata"]),
    )


def titled(event_type: str) -> str:
    """As it is stored: Title Case words."""
    return " ".join(word.capitalize() for word in re.split(r"[\s_-]+", event_type) if word)


def milliseconds(text: str) -> int:
    """Of an RFC 3339 time."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def digest(value: Any) -> bytes:
    """Of a JSON value, whatever the order of its keys."""
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


def payload_digest(key: bytes | None, value: bytes | None) -> bytes:
    """Of a record's key and value; a missing one is not an empty one."""
    return blake2b(repr((key, value)).encode(), digest_size=12).digest()
