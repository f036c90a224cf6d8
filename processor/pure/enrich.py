"""Enriched events: a stored row as the bytes and headers that are published, the same at every redelivery."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Raw
from msgspec.json import Encoder

from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow, Json, Reason, Ruling

SCHEMA_VERSION = b"1"

_commit_text = lru_cache(64)(to_text)  # all new rows of a batch have one
_encode = Encoder(enc_hook=dict).encode  # a mapping of any kind is written as an object


def enriched_row(
    ruling: Ruling, reason: Reason | None, by: Mapping[str, Json] | None, received_at: int
) -> EnrichedRow:
    """The row of an event that was stored with this verdict at a time, in milliseconds."""
    case = ruling.case
    event, root = case.event, case.root.lead_id
    return EnrichedRow(
        event.id,
        event.org_unit,
        root,
        event.lead_id if event.lead_id != root else None,
        event.event_type,
        Raw(event.metadata_json),
        reason,
        to_text(event.occurred_at),
        _commit_text(received_at),
        by,
    )


def enriched(row: EnrichedRow) -> bytes:
    """The value of the enriched event."""
    return _encode(row)


def headers(row: EnrichedRow) -> list[tuple[str, bytes]]:
    """What a reader may select by without decoding the value; organic events have no ``suppression-reason``."""
    return [("event-id", row.id.encode()), *_common(row.org_unit, row.suppression_reason)]


@lru_cache(4096)
def _common(org_unit: str, reason: Reason | None) -> Sequence[tuple[str, bytes]]:
    """What is the same for many events."""
    always = (("org-unit", org_unit.encode()), ("schema-version", SCHEMA_VERSION))
    return always if reason is None else (*always, ("suppression-reason", reason.encode()))
