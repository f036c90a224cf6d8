"""Enriched events: a stored row as the bytes and headers that are published, the same at every redelivery."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Raw, Struct
from msgspec.json import Encoder

from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow, Json, Reason

SCHEMA_VERSION = b"1"

_commit_text = lru_cache(64)(to_text)  # all new rows of a batch have one
_encode = Encoder(enc_hook=dict).encode  # a mapping of any kind is written as an object


class _Enriched(Struct, frozen=True, gc=False):
    """The fields of the value, in their order."""

    id: str
    org_unit: str
    lead_id: str
    original_lead_id: str | None
    event_type: str
    metadata: Raw
    suppression_reason: Reason | None
    created_at: str
    received_at: str
    suppressed_by: Mapping[str, Json] | None


def enriched(row: EnrichedRow) -> bytes:
    """The value of the enriched event."""
    return _encode(
        _Enriched(
            row.event_id,
            row.org_unit,
            row.lead_id,
            row.original_lead_id,
            row.event_type,
            Raw(row.metadata_json),
            row.suppression_reason,
            to_text(row.created_at),
            _commit_text(row.received_at),
            row.suppressed_by,
        )
    )


def headers(row: EnrichedRow) -> list[tuple[str, bytes]]:
    """What a reader may select by without decoding the value; organic events have no ``suppression-reason``."""
    return [("event-id", row.event_id.encode()), *_common(row.org_unit, row.suppression_reason)]


@lru_cache(4096)
def _common(org_unit: str, reason: Reason | None) -> Sequence[tuple[str, bytes]]:
    """What is the same for many events."""
    always = (("org-unit", org_unit.encode()), ("schema-version", SCHEMA_VERSION))
    return always if reason is None else (*always, ("suppression-reason", reason.encode()))
