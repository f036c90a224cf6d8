"""Enriched events: the bytes and headers that readers rely on."""

import json
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from processor.pure.enrich import enriched, headers
from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow
from schemas.messages import EnrichedEvent

ORGANIC = EnrichedRow(
    id="e-1",
    org_unit="acme",
    lead_id="lead-1",
    original_lead_id=None,
    event_type="Page View",
    metadata=Raw(b'{"b":1.0,"a":{"c":"\xc3\xa9"}}'),
    suppression_reason=None,
    created_at=to_text(1_767_268_800_123),
    received_at=to_text(1_767_268_801_000),
    suppressed_by=None,
)
SUPPRESSED = replace(
    ORGANIC,
    original_lead_id="lead-0",
    suppression_reason="inorganic",
    suppressed_by={
        "filter_id": "vf-1",
        "filter_version": 2,
        "filter_name": "Bursts",
        "count": 4,
        "threshold": 3,
        "window_ms": 1000,
    },
)


def test_an_organic_event_has_every_field_and_null_for_what_does_not_apply() -> None:
    """In the order of the contract; metadata are the very bytes of the row."""
    assert enriched(ORGANIC).decode() == (
        '{"id":"e-1","org_unit":"acme","lead_id":"lead-1","original_lead_id":null,'
        '"event_type":"Page View","metadata":{"b":1.0,"a":{"c":"é"}},"suppression_reason":null,'
        '"created_at":"2026-01-01T12:00:00.123Z","received_at":"2026-01-01T12:00:01.000Z",'
        '"suppressed_by":null}'
    )


def test_a_suppressed_event_says_by_which_filter() -> None:
    """And which lead it named, where that was merged away."""
    found = json.loads(enriched(SUPPRESSED))
    assert found["suppression_reason"] == "inorganic"
    assert found["original_lead_id"] == "lead-0"
    assert found["suppressed_by"] == SUPPRESSED.suppressed_by


def test_headers_let_a_reader_select_without_reading_the_value() -> None:
    """An organic event has no suppression-reason."""
    assert headers(ORGANIC) == [
        ("event-id", b"e-1"),
        ("org-unit", b"acme"),
        ("schema-version", b"1"),
    ]
    assert headers(SUPPRESSED) == [*headers(ORGANIC), ("suppression-reason", b"inorganic")]
    assert headers(replace(ORGANIC, org_unit="é"))[1] == ("org-unit", "é".encode())


def test_a_frozen_mapping_is_written_as_an_object() -> None:
    """Rulings hold their provenance read-only."""
    by = MappingProxyType(dict(SUPPRESSED.suppressed_by or {}))
    assert enriched(replace(SUPPRESSED, suppressed_by=by)) == enriched(SUPPRESSED)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    st.integers(-62_135_596_800_000, 253_402_300_799_999),
)
def test_any_row_is_written_as_an_event_of_the_schema(text: str, time: int) -> None:
    """Whatever text and time it holds, they are read back the same."""
    row = replace(SUPPRESSED, id=text[:128], event_type=text, created_at=to_text(time))
    value = enriched(row)
    found = EnrichedEvent.model_validate_json(value)
    assert (found.id, found.event_type) == (text[:128], text)
    assert json.loads(value)["created_at"] == found.created_at
