"""Kafka records to events and merge commands.  Total: any bytes at all give a value, never an exception.

The fast decoders may only accept.  What they refuse, and what they may have read differently, is read again by the exact one
(`processor.pure.jsontext`), and all go through the same checks, so they can only differ in speed.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import orjson
from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from processor.pure import jsontext, timestamps
from processor.pure.faults import Fault, Refused, optional, refuse, rejected, required, text
from processor.pure.metadata import check
from processor.pure.origin import Origin, derived_id, origin_of, timestamp_of
from processor.pure.types import Event, Json, MergeCommand, Record, Rejected
from schemas.names import normalise_event_type

__all__ = [
    "Fields",
    "derived_id",
    "in_time",
    "judged",
    "merge_asked",
    "normalise_event_type",
    "parse",
    "parse_merge",
    "read",
    "validate",
]

LONGEST_ORG_UNIT = 64
LONGEST_ID = 128
LONGEST_EVENT_TYPE = 128
MOST_SOURCES = 500

_NOT_AN_OBJECT = Fault("parse", "not_an_object", "The value is not a JSON object.")
_normalised = lru_cache(4096)(normalise_event_type)
T = TypeVar("T")


_Kept: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Value: TypeAlias = str | bool | _Kept | float | list[Any] | dict[str, Any] | None


class _Plain(Struct, gc=False):
    """A raw event that has everything; fields that nobody knows are passed over, their texts unseen."""

    org_unit: str
    id: str
    lead_id: str
    event_type: str
    metadata: dict[str, _Value] | None = None
    timestamp: str | None = None
    created_at: str | None = None


_decoded = Decoder(_Plain).decode
_NOT_PLAIN = (DecodeError, UnicodeDecodeError, RecursionError, Refused)


class Fields(Struct, frozen=True):
    """What a raw event says, before its record fills what it leaves out."""

    org_unit: str
    id: str | None
    lead_id: str
    event_type: str
    """Normalised to Title Case words."""
    metadata: dict[str, Json]
    metadata_json: bytes
    occurred_at: int | None
    doubtful: bool
    """It must be decoded exactly (`jsontext.decode`) before it can be believed."""


def parse(record: Record, max_future_ms: int) -> Event | Rejected:
    """The event of a raw record, or why there is none."""
    return _plain(record, max_future_ms) or _any(record, max_future_ms)


def _any(record: Record, max_future_ms: int) -> Event | Rejected:
    fields = read(record.value)
    if isinstance(fields, Fault):
        return rejected(record, fields)
    try:
        return _completed(record, fields, max_future_ms)
    except Refused as refused:
        return rejected(record, refused.fault)


def _plain(record: Record, max_future_ms: int) -> Event | None:
    """The event of a record that has everything and nothing unusual, at half the cost; None: `read` has to look at it."""
    value, published_at = record.value, record.timestamp
    if value is None or published_at is None or published_at < 0 or jsontext.excessive(value):
        return None
    try:
        fields = _decoded(value)
        metadata, compact, doubtful = check(fields.metadata)
        simple = value.isascii() and jsontext.BACKSLASH not in value
        if doubtful or not (simple or _all_ascii(value, fields)):
            return None
    except _NOT_PLAIN:
        return None
    org_unit, event_id, lead_id = fields.org_unit, fields.id, fields.lead_id
    event_type = fields.event_type
    if not (0 < len(org_unit) <= LONGEST_ORG_UNIT and 0 < len(event_type) <= LONGEST_EVENT_TYPE):
        return None
    at = fields.created_at if fields.timestamp is None else fields.timestamp
    occurred_at = None if at is None else timestamps.from_text(at)
    name = _normalised(event_type)
    if occurred_at is None or not name or occurred_at > published_at + max_future_ms:
        return None
    if not (0 < len(event_id) <= LONGEST_ID and 0 < len(lead_id) <= LONGEST_ID):
        return None
    return Event(record, org_unit, event_id, lead_id, name, metadata, compact, occurred_at)


def _all_ascii(value: bytes, fields: _Plain) -> bool:
    """Whether texts that have rules are ASCII without NUL; raises `UnicodeDecodeError` for a value that is no UTF-8."""
    value.decode()  # texts of unknown fields, too
    texts = f"{fields.org_unit}{fields.id}{fields.lead_id}{fields.event_type}{fields.timestamp}{fields.created_at}"
    return texts.isascii() and "\0" not in texts


def read(value: bytes | None) -> Fields | Fault:
    """What the bytes of a raw event say."""
    return jsontext.NO_VALUE if value is None else judged(value, validate, _sure)


def judged(
    value: bytes,
    judge: Callable[[Json], T],
    sure: Callable[[T], bool],
    deepest: int = jsontext.DEEPEST,
) -> T | Fault:
    """What a judge makes of a JSON text, read exactly unless what it made of the fast reading is `sure` to be the same."""
    if not jsontext.excessive(value, deepest):
        try:
            found = judge(orjson.loads(value))
        except orjson.JSONDecodeError:
            pass
        else:
            if sure(found):
                return found
    exact = jsontext.decode(value, deepest)
    return exact if isinstance(exact, Fault) else judge(exact)


def validate(decoded: Json) -> Fields | Fault:
    """The one judge of a decoded raw event.  It knows no record: what may be absent stays None."""
    if type(decoded) is not dict:
        return _NOT_AN_OBJECT
    try:
        metadata, compact, doubtful = check(decoded.get("metadata"))
        return Fields(
            required(decoded, "org_unit", LONGEST_ORG_UNIT),
            optional(decoded, "id", LONGEST_ID),
            required(decoded, "lead_id", LONGEST_ID),
            _event_type(required(decoded, "event_type", LONGEST_EVENT_TYPE)),
            metadata,
            compact,
            _occurred_at(decoded),
            doubtful,
        )
    except Refused as refused:
        return refused.fault


def parse_merge(record: Record) -> MergeCommand | Rejected:
    """The command of a record of the merge topic, or why there is none."""
    decoded = jsontext.NO_VALUE if record.value is None else jsontext.decode(record.value)
    if isinstance(decoded, Fault):
        return rejected(record, decoded)
    if type(decoded) is not dict:
        return rejected(record, _NOT_AN_OBJECT)
    try:
        return _merge_command(record, decoded)
    except Refused as refused:
        return rejected(record, refused.fault)


def merge_asked(decoded: Json) -> tuple[str, tuple[str, ...]] | Fault:
    """Target and sources (without repeats) of a merge in the API's spelling, by the rules of `parse_merge`."""
    if type(decoded) is not dict:
        return _NOT_AN_OBJECT
    try:
        return _leads(decoded, "targetLeadId", "sourceLeadIds")
    except Refused as refused:
        return refused.fault


def in_time(occurred_at: int, published_at: int, max_future_ms: int) -> None:
    """Raises `Refused` for an event that lies too far after its record."""
    if occurred_at > published_at + max_future_ms:
        refuse(
            "too_far_in_future", f"timestamp is more than {max_future_ms} ms after the record's."
        )


def _completed(record: Record, fields: Fields, max_future_ms: int) -> Event:
    event_id, occurred_at = fields.id, fields.occurred_at
    if event_id is None or occurred_at is None:
        origin = origin_of(record)
        event_id = _id_of(origin) if event_id is None else event_id
        occurred_at = _time_of(origin, "timestamp") if occurred_at is None else occurred_at
    published_at = timestamp_of(record)
    if published_at is not None:
        in_time(occurred_at, published_at, max_future_ms)
    return Event(
        record,
        fields.org_unit,
        event_id,
        fields.lead_id,
        fields.event_type,
        fields.metadata,
        fields.metadata_json,
        occurred_at,
    )


def _sure(fields: Fields | Fault) -> bool:
    return isinstance(fields, Fields) and not fields.doubtful


def _event_type(raw: str) -> str:
    normalised = _normalised(raw)
    if not normalised:
        refuse("no_event_type", "event_type has nothing but separators.")
    return normalised


def _occurred_at(fields: dict[str, Json]) -> int | None:
    name = "timestamp"
    value = fields.get(name)
    if value is None:
        name = "created_at"
        value = fields.get(name)
        if value is None:
            return None
    if type(value) is not str:
        refuse("wrong_type", f"{name} must be a string.")
    occurred_at = timestamps.from_text(value)
    if occurred_at is None:
        refuse(
            "bad_timestamp", f"{name} is not an RFC 3339 time with offset in the years 1 to 9999."
        )
    return occurred_at


def _id_of(origin: Origin) -> str:
    return derived_id(origin.topic, origin.partition, origin.offset, origin.timestamp)


def _time_of(origin: Origin, name: str) -> int:
    """The record's timestamp, in milliseconds; raises `Refused` naming the field it stands in for."""
    if origin.timestamp is None:
        refuse("missing_field", f"{name} is required where the record has no timestamp.")
    if origin.timestamp > timestamps.LATEST:
        refuse(
            "bad_timestamp", f"{name} is absent and the record's timestamp is after the year 9999."
        )
    return origin.timestamp


def _merge_command(record: Record, fields: dict[str, Json]) -> MergeCommand:
    origin = origin_of(record)
    org_unit = required(fields, "org_unit", LONGEST_ORG_UNIT)
    target, sources = _leads(fields, "target_lead_id", "source_lead_ids")
    return MergeCommand(
        record,
        _id_of(origin),
        org_unit,
        target,
        sources,
        optional(fields, "requested_by", LONGEST_ID),
        _kind(fields.get("kind")),
        _time_of(origin, "the record's timestamp"),
    )


def _leads(
    fields: dict[str, Json], target_name: str, sources_name: str
) -> tuple[str, tuple[str, ...]]:
    target = required(fields, target_name, LONGEST_ID)
    sources = fields.get(sources_name)
    if sources is None:
        refuse("missing_field", f"{sources_name} is required.")
    if type(sources) is not list:
        refuse("wrong_type", f"{sources_name} must be an array.")
    if not 0 < len(sources) <= MOST_SOURCES:
        refuse("bad_length", f"{sources_name} must have 1 to {MOST_SOURCES} items.")
    ids = (text(one, f"{sources_name}[{n}]", LONGEST_ID) for n, one in enumerate(sources))
    return target, tuple(dict.fromkeys(ids))


def _kind(value: Json) -> Literal["merge", "unmerge"]:
    if value is None or value == "merge":
        return "merge"
    if value != "unmerge":
        refuse("bad_value", "kind must be merge or unmerge.")
    return "unmerge"
