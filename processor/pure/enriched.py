"""What a reader of the enriched topic makes of a message: an event that counts, a merge to follow, nothing, or no message of ours.

Only what is needed is looked at, so that fields may be added; the rest of the message may be anything.
"""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from processor.pure.faults import unstorable
from processor.pure.parse import MOST_SOURCES
from processor.pure.timestamps import from_text

LINKS = frozenset({"Lead Merged", "Lead Unmerged"})
"""Types that tell of leads and are no engagement, whoever sent them."""
LONGEST = {"org_unit": 64, "id": 128, "lead_id": 128, "original_lead_id": 128, "event_type": 384}
"""Characters.  A type is sent with 128 at most, of which title case may make three each."""


class Organic(Struct, frozen=True, gc=False):
    """An event that counts."""

    org_unit: str
    id: str
    lead_id: str
    """The lead it named, which no merge changes."""
    event_type: str
    at: int


class Relinked(Struct, frozen=True):
    """What says to be a merge or unmerge, and the leads it names: their roots may have changed, and those of others that it parted."""

    org_unit: str
    id: str
    leads: Sequence[str]
    at: int


class Foreign(Struct, frozen=True):
    """No enriched event."""

    reason: str


Found: TypeAlias = Organic | Relinked | Foreign | None
"""None: nothing to count."""


class _Enriched(Struct):
    id: str
    org_unit: str
    lead_id: str
    event_type: str
    created_at: str
    suppression_reason: str | None
    original_lead_id: str | None = None
    metadata: Raw = Raw(b"{}")


_Source: TypeAlias = Annotated[str, Meta(min_length=1, max_length=LONGEST["lead_id"])]


class _Link(Struct):
    source_lead_ids: Annotated[list[_Source], Meta(max_length=MOST_SOURCES)]


_enriched = msgspec.json.Decoder(_Enriched).decode
_link = msgspec.json.Decoder(_Link).decode
_BAD = (msgspec.DecodeError, UnicodeDecodeError)


def found_in(value: bytes | None) -> Found:
    """What the value of a record of the enriched topic says."""
    try:
        event = _enriched(value or b"")
    except _BAD as error:
        return Foreign(f"no enriched event: {error}")
    for name, longest in LONGEST.items():
        text = getattr(event, name)
        if text is not None and (not 0 < len(text) <= longest or unstorable(text)):
            return Foreign(f"{name} breaks its rule")
    at = from_text(event.created_at)
    if at is None:
        return Foreign("created_at is no time")
    if event.event_type in LINKS:
        return _relinked(event, at)
    if event.suppression_reason is not None:
        return None
    return Organic(event.org_unit, event.id, _named(event), event.event_type, at)


def _relinked(event: _Enriched, at: int) -> Relinked:
    """A producer may name its own events so, with any metadata: what no merge can say names no other lead."""
    try:
        named = _link(event.metadata).source_lead_ids
    except _BAD:
        named = []
    if any(map(unstorable, named)):
        named = []
    return Relinked(event.org_unit, event.id, [_named(event), *named], at)


def _named(event: _Enriched) -> str:
    """The lead that the event named."""
    return event.lead_id if event.original_lead_id is None else event.original_lead_id
