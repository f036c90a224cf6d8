"""What a reader makes of a message of the enriched topic, and which records are due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode

from processor.pure.enriched import Foreign, Organic, Relinked, found_in
from processor.pure.parse import LONGEST_EVENT_TYPE, LONGEST_ID, MOST_SOURCES, normalise_event_type
from processor.pure.places import MOST_LEADS, Delivered, Due, due, in_parts
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


@pytest.mark.parametrize("sent", ["ß" + "x" * 127, "ΐ " * 64, "a" + "İ" * 127, "ŉ " * 64])
def test_an_event_counts_however_long_title_case_makes_its_type(sent: str) -> None:
    """Sent with as many characters as may be."""
    assert len(sent) == LONGEST_EVENT_TYPE
    event_type = normalise_event_type(sent)
    assert found_in(encode({**GIVEN, "event_type": event_type})) == Organic(
        "acme", "e", "a", event_type, AT
    )


@pytest.mark.parametrize("reason", ["inorganic", "inorganic_grouped", "metadata_filter", "new"])
def test_a_suppressed_event_never_counts(reason: str) -> None:
    """Nor does one with a reason that is not known yet."""
    assert found_in(encode({**GIVEN, "suppression_reason": reason})) is None


@pytest.mark.parametrize("event_type", ["Lead Merged", "Lead Unmerged"])
def test_a_merge_is_no_engagement_and_tells_which_leads_to_look_at(event_type: str) -> None:
    """Its survivor and its sources, as many as a merge has."""
    most = [f"lead {n}" for n in range(MOST_SOURCES - 1)] + ["x" * LONGEST_ID]
    for sources in (["b", "c"], most):
        told = {**GIVEN, "event_type": event_type, "metadata": {"source_lead_ids": sources}}
        assert found_in(encode(told)) == Relinked("acme", "e", ["a", *sources], AT)


@pytest.mark.parametrize("event_type", ["Lead Merged", "Lead Unmerged"])
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"source_lead_ids": 1},
        {"source_lead_ids": ["b", 1]},
        {"source_lead_ids": ["b", ""]},
        {"source_lead_ids": ["b", "\0"]},
        {"source_lead_ids": ["b", "x" * (LONGEST_ID + 1)]},
        {"source_lead_ids": [f"lead {n}" for n in range(MOST_SOURCES + 1)]},
    ],
)
def test_what_no_merge_can_say_names_no_other_lead(
    event_type: str, metadata: dict[str, object]
) -> None:
    """A producer may name its own events as merges are named, with any metadata."""
    told = {**GIVEN, "event_type": event_type, "metadata": metadata}
    assert found_in(encode(told)) == Relinked("acme", "e", ["a"], AT)


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


@given(st.lists(st.sampled_from([0, 1, 400, MOST_SOURCES, 4_998, 4_999, 9_000]), max_size=40))
def test_parts_are_the_whole_in_order_and_name_no_more_leads_than_may_be(sizes: list[int]) -> None:
    """One record alone may; a part is as long as it can be."""
    batch = [
        Delivered(0, n, n - 1, Relinked("acme", "e", ["a"] * size, AT) if size else None)
        for n, size in enumerate(sizes)
    ]
    parts = list(in_parts(batch))
    assert [one for part in parts for one in part] == batch
    leads = [sum(sizes[one.offset] for one in part) for part in parts]
    for part, number in zip(parts, leads, strict=True):
        assert number <= MOST_LEADS or len(part) == 1
    for number, after in zip(leads, parts[1:], strict=False):
        assert number + sizes[after[0].offset] > MOST_LEADS


@given(st.integers(1, 12), st.data())
def test_what_was_fetched_again_counts_whatever_stands_around_it(
    number: int, data: st.DataObject
) -> None:
    """Each record once and in order: rests of former fetches stand before, between and behind it."""
    records = [one(offset, offset - 1) for offset in range(number)]
    delivered = list(records)
    for rest in data.draw(st.lists(st.sampled_from(records), max_size=20)):
        delivered.insert(data.draw(st.integers(0, len(delivered))), rest)
    found = due(delivered, {0: 0})
    assert found.records == records
    assert (found.places, found.torn) == ({0: number}, frozenset())
