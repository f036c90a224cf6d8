"""What the live stream sends for a record: server-sent events, each with the position after it as its id.

A record is rendered once, for whoever may want it; `Wanted` says who does.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from processor.pure.position import Lost, Place, Position, advanced, encode

Reason: TypeAlias = Literal["none", "inorganic", "inorganic_grouped", "metadata_filter"]
ENRICHED, ENGAGEMENT = 0, 1
"""The numbers of the topics that are followed."""
REASONS: frozenset[str] = frozenset({"none", "inorganic", "inorganic_grouped", "metadata_filter"})
KEEP_ALIVE = b": keep-alive\n\n"
_MERGED = "Lead Merged"
_ORG_UNIT = "org-unit"
_BREAKS = b"\r\n"
_LOST: dict[Lost, str] = {
    "unknown": "This is no id of an event of this stream.",
    "foreign": "The id belongs to other topics, or to topics that were created again since.",
    "expired": "Some of the events since are no longer kept.",
    "ahead": "The id is past the end of what is there.",
    "recreated": "A topic was created again.",
}


class Read(Struct, frozen=True):
    """A record of a topic that is followed."""

    place: Place
    offset: int
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None


class Frame(Struct, frozen=True):
    """A server-sent event as it is written."""

    text: bytes
    reason: Reason | None = None
    """Of an enriched event; None: no choice of reasons or types leaves it out."""
    event_type: str = ""


class Wanted(Struct, frozen=True):
    """Which enriched events a client has asked for."""

    reasons: frozenset[str] = REASONS
    event_types: frozenset[str] = frozenset()
    """As they are stored; none: every type."""

    def takes(self, frame: Frame) -> bool:
        """Whether the frame is for this client."""
        if frame.reason is None:
            return True
        return frame.reason in self.reasons and (
            not self.event_types or frame.event_type in self.event_types
        )


class _Enriched(Struct):
    id: str
    lead_id: str
    event_type: str
    suppression_reason: Literal["inorganic", "inorganic_grouped", "metadata_filter"] | None
    created_at: str
    metadata: Raw


class _Merge(Struct):
    source_lead_ids: list[str]
    events_moved: int
    requested_by: str | None


class _Engagement(Struct):
    type: Literal["lead_created", "score_update", "surge"]
    org_unit: str


_enriched = msgspec.json.Decoder(_Enriched).decode
_merge = msgspec.json.Decoder(_Merge).decode
_engagement = msgspec.json.Decoder(_Engagement).decode
_BAD = (msgspec.DecodeError, UnicodeDecodeError)


def org_unit_of(read: Read) -> str | None:
    """Whose record it is; None for a record that is none of ours.  Enriched events say so in a header."""
    try:
        if read.place[0] == ENGAGEMENT:
            return _engagement(read.value or b"").org_unit
        named = [value for name, value in read.headers if name == _ORG_UNIT]
        return named[-1].decode() if named else None
    except _BAD:
        return None


def render(position: Position, read: Read) -> tuple[Position, Sequence[Frame]]:
    """The position after the record, and what is sent for it from the position before it."""
    after = advanced(position, read.place, read.offset + 1)
    events = _events(read)
    begin = 0
    if position.sent and position.sent.place == read.place:
        begin = position.sent.events if position.next(read.place) == read.offset else 0
    frames = []
    for number, event in enumerate(events[begin:], begin + 1):
        last = number == len(events)
        at = after if last else advanced(position, read.place, read.offset, number)
        frames.append(Frame(id_line(at) + event.text, event.reason, event.event_type))
    return after, frames


def id_line(position: Position) -> bytes:
    """The line that tells a client where it stands."""
    return b"id: %b\n" % encode(position).encode()


def hello(position: Position | None, retry_ms: int) -> bytes:
    """The first thing a client gets: how soon to come back, and from where even if nothing else follows."""
    at = b"" if position is None else id_line(position)
    return b": connected\nretry: %d\n%b\n" % (retry_ms, at)


def keep_alive(position: Position) -> bytes:
    """Says that the line is open, and where the client stands by now."""
    return b": keep-alive\n%b\n" % id_line(position)


def reset(why: Lost, position: Position) -> Frame:
    """Tells that events were left out and that it goes on from the position."""
    data = msgspec.json.encode({"reason": why, "message": _LOST[why]})
    return Frame(id_line(position) + _event(b"reset", data).text)


def _events(read: Read) -> Sequence[Frame]:
    """Without their ids, always the same ones in the same order; none for a record that is none of ours."""
    value = read.value or b""
    try:
        if read.place[0] == ENGAGEMENT:
            return [_event(_engagement(value).type.encode(), value)]
        event = _enriched(value)
    except _BAD:
        return []
    reason: Reason = event.suppression_reason or "none"
    first = _event(b"new_event", value, reason, event.event_type)
    return [first, *_merged(event)] if event.event_type == _MERGED else [first]


def _merged(event: _Enriched) -> Sequence[Frame]:
    try:
        metadata = _merge(event.metadata)
    except _BAD:
        return []  # a producer may name its own events so
    data = {
        "id": event.id,
        "lead_id": event.lead_id,
        "source_lead_ids": metadata.source_lead_ids,
        "events_moved": metadata.events_moved,
        "requested_by": metadata.requested_by,
        "created_at": event.created_at,
    }
    return [_event(b"lead_merged", msgspec.json.encode(data))]


def _event(name: bytes, data: bytes, reason: Reason | None = None, event_type: str = "") -> Frame:
    """A line break in JSON text is white space, never part of a string."""
    text = b"event: %b\ndata: %b\n\n" % (name, data.translate(None, _BREAKS))
    return Frame(text, reason, event_type)
