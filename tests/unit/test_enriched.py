"""What a reader makes of a message of the enriched topic, and which records are due."""

import pytest
from msgspec.json import encode

from processor.pure.enriched import Foreign, Organic, Relinked, found_in
from processor.pure.places import Delivered, Due, due
from schemas.examples import EXAMPLES

GIVEN = {
    "id": "e",
    "org_unit": "acme",
    "lead_id": "a",
    "original_lead_id": None,
    "event_type": "Page View",
    "metadata": {"x": [1]},
    "suppression_reason": None,
    "created_at": "2025-01-15T10:30:00.001Z",
    "received_at": "2025-01-15T10:30:01.000Z",
    "suppressed_by": None,
}
AT = 1_736_937_000_001


def test_an_organic_event_counts_for_the_lead_it_named() -> None:
    """Whatever it is merged into; fields may be added."""
    assert found_in(encode(GIVEN)) == Organic("acme", "e", "a", "Page View", AT)
    moved = {**GIVEN, "lead_id": "root", "original_lead_id": "a", "added": {"later": 1}}
    assert found_in(encode(moved)) == Organic("acme", "e", "a", "Page View", AT)


@pytest.mark.parametrize("reason", ["inorganic", "inorganic_grouped", "metadata_filter", "new"])
def test_a_suppressed_event_never_counts(reason: str) -> None:
    """Nor does one with a reason that is not known yet."""
    assert found_in(encode({**GIVEN, "suppression_reason": reason})) is None


@pytest.mark.parametrize("event_type", ["Lead Merged", "Lead Unmerged"])
def test_a_merge_is_no_engagement_and_tells_which_leads_to_look_at(event_type: str) -> None:
    """Its survivor and its sources; a producer's event of that name has none."""
    told = {**GIVEN, "event_type": event_type, "metadata": {"source_lead_ids": ["b", "c", ""]}}
    assert found_in(encode(told)) == Relinked("acme", ["a", "b", "c"], AT)
    assert found_in(encode({**told, "metadata": {}})) == Relinked("acme", ["a"], AT)
    assert found_in(encode({**told, "metadata": {"source_lead_ids": 1}})) == Relinked(
        "acme", ["a"], AT
    )


def test_the_examples_of_the_schema_are_understood() -> None:
    """All of them."""
    for example in EXAMPLES["EnrichedEvent"]:
        assert not isinstance(found_in(encode(example)), Foreign)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"\xff",
        encode({**GIVEN, "id": 1}),
        encode({**GIVEN, "lead_id": None}),
        encode({**GIVEN, "lead_id": ""}),
        encode({**GIVEN, "id": "x" * 129}),
        encode({**GIVEN, "org_unit": "\0"}),
        encode({**GIVEN, "created_at": "yesterday"}),
        encode({k: v for k, v in GIVEN.items() if k != "suppression_reason"}),
    ],
)
def test_anything_else_is_foreign(value: bytes | None) -> None:
    """A value that says why, without what it holds."""
    found = found_in(value)
    assert isinstance(found, Foreign)
    assert "yesterday" not in found.reason


def one(offset: int, previous: int, partition: int = 0) -> Delivered:
    """A record that says nothing."""
    return Delivered(partition, offset, previous, None)


def test_due_is_what_follows_what_was_applied() -> None:
    """Markers between records are no gap; what was applied is passed over; a gap tears its partition alone."""
    batch = [one(3, 2), one(5, 3), one(9, 7), one(10, 9), one(4, -1, 1)]
    assert due(batch, {0: 4, 1: 0}) == Due([batch[1], batch[4]], {0: 6, 1: 5}, frozenset({0}))
    assert due(batch[:2], {0: 3}) == Due(batch[:2], {0: 6}, frozenset())
    assert due([one(0, -1)], {0: 0}).places == {0: 1}
    assert due([one(0, 2**63 - 1)], {0: 0}).torn == {0}
