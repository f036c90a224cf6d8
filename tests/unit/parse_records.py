"""Records for the tests of parse, and what the two ways of reading make of them."""

import json
from typing import Any

from msgspec.structs import asdict

from processor.pure import jsontext, parse
from processor.pure.faults import Fault
from processor.pure.types import Event, MergeCommand, Rejected
from tests.oracle_parse import Message

NOON = 1_767_268_800_000
"""2026-01-01T12:00:00Z, the timestamp of the records."""
HOUR = 3_600_000
BODY: dict[str, Any] = {"org_unit": "acme", "lead_id": "lead-1", "event_type": "page_view"}
ASKED: dict[str, Any] = {
    "org_unit": "acme",
    "target_lead_id": "lead-1",
    "source_lead_ids": ["lead-2", "lead-3"],
}


def record(
    value: bytes | None,
    timestamp: int | None = NOON,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Message:
    """One record of the raw topic."""
    return Message("events.raw", 3, 14, timestamp, b"lead-1", value, headers)


def spliced(name: str, text: str) -> bytes:
    """A good event with one more member, its value given as JSON text."""
    return f'{json.dumps(BODY)[:-1]}, "{name}": {text}}}'.encode()


def accepted(value: bytes | None, **more: Any) -> Event:
    """The event of the bytes, which are good."""
    event = parse.parse(record(value, **more), HOUR)
    assert isinstance(event, Event), event
    return event


def event(**fields: Any) -> Event:
    """The event of a good body with these fields."""
    return accepted(json.dumps(BODY | fields).encode())


def kept(event: Event) -> dict[str, Any]:
    """The event without its record."""
    return {name: value for name, value in asdict(event).items() if name != "record"}


def refused(value: bytes | None, **more: Any) -> Rejected:
    """Why the bytes, which are bad, are refused."""
    refusal = parse.parse(record(value, **more), HOUR)
    assert isinstance(refusal, Rejected), refusal
    return refusal


def merged(value: bytes | None, **more: Any) -> MergeCommand | Rejected:
    """What a record of the merge topic says."""
    return parse.parse_merge(record(value, **more))


def exactly(value: bytes) -> "parse.Fields | Fault":
    """What the exact decoder alone makes of the bytes."""
    decoded = jsontext.decode(value)
    return decoded if isinstance(decoded, Fault) else parse.validate(decoded)


def said(read: "parse.Fields | Fault") -> object:
    """All that is kept of what was read, with the types of its numbers."""
    if isinstance(read, Fault):
        return read
    return (
        read.org_unit,
        read.id,
        read.lead_id,
        read.event_type,
        read.metadata_json,
        repr(read.metadata),
        read.occurred_at,
    )
