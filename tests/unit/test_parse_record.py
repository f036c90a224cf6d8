"""What an event takes from its record: its time, its id, and how late it may be."""

import json
from typing import Any

import pytest

from processor.pure.parse import derived_id
from tests.unit.parse_records import BODY, HOUR, NOON, accepted, event, refused

REPLAYED = (
    ("original-topic", b"events.raw"),
    ("original-partition", b"7"),
    ("original-offset", b"99"),
    ("original-timestamp", b"1767225600000"),
)


def body(**fields: Any) -> bytes:
    """A good event with these fields, as JSON."""
    return json.dumps(BODY | fields).encode()


def test_timestamp_wins_over_its_alias() -> None:
    """Also where it is bad; an absent or null one leaves the alias to speak."""
    noon, later = "2026-01-01T12:00:00Z", "2026-01-01T12:00:01Z"
    assert event(timestamp=noon, created_at=later).occurred_at == NOON
    assert event(timestamp=noon, created_at=5).occurred_at == NOON
    assert event(timestamp=None, created_at=later).occurred_at == NOON + 1000
    assert event(created_at=later).occurred_at == NOON + 1000
    assert refused(body(timestamp="", created_at=later)).reason.startswith("timestamp is not")


@pytest.mark.parametrize("name", ["timestamp", "created_at"])
def test_a_bad_time_is_refused_naming_its_field(name: str) -> None:
    """Whichever field it came in."""
    for value, error in ((5, "wrong_type"), (True, "wrong_type"), ("noon", "bad_timestamp")):
        refusal = refused(body(**{name: value}))
        assert (refusal.stage, refusal.error) == ("validate", error)
        assert refusal.reason.startswith(f"{name} ")


def test_an_event_without_a_time_occurred_when_its_record_says() -> None:
    """The default is the record's timestamp, and there must be one."""
    assert event().occurred_at == NOON
    for none in (None, -1):
        refusal = refused(body(), timestamp=none)
        assert (refusal.stage, refusal.error) == ("validate", "missing_field")
        assert refusal.reason.startswith("timestamp is required")
    assert accepted(body(), timestamp=253_402_300_799_999).occurred_at == 253_402_300_799_999
    assert refused(body(), timestamp=253_402_300_800_000).error == "bad_timestamp"


def test_an_event_later_than_its_record_allows_is_refused() -> None:
    """The bound itself is still taken; without a record timestamp there is no bound."""
    on_it, over = body(timestamp="2026-01-01T13:00:00Z"), body(timestamp="2026-01-01T13:00:00.001Z")
    assert accepted(on_it).occurred_at == NOON + HOUR
    assert (refused(over).stage, refused(over).error) == ("validate", "too_far_in_future")
    assert accepted(over, timestamp=None).occurred_at == NOON + HOUR + 1
    assert accepted(over, timestamp=-1).occurred_at == NOON + HOUR + 1


def test_an_event_without_an_id_gets_one_from_where_it_lies() -> None:
    """Every redelivery has the same place, and no two messages share one."""
    assert event().id == derived_id("events.raw", 3, 14, NOON)
    places = [
        ("t", 1, 2, 3),
        ("t", 12, 3, 4),
        ("t", 1, 23, 4),
        ("t 1", 1, 2, 3),
        ("3 t", 1, 2, 3),
        ("t", 1, 2, 33),
        ("t", 1, 2, None),
    ]
    ids = {derived_id(*place) for place in places}
    assert len(ids) == len(places)
    assert all(len(found) == 32 and int(found, 16) >= 0 for found in ids)
    assert derived_id("t", 1, 2, None) == derived_id("t", 1, 2, -1)


def test_a_replayed_event_keeps_the_id_and_time_of_its_original() -> None:
    """The four headers stand in for the coordinates, for a missing id and a missing time."""
    found = accepted(body(), headers=REPLAYED)
    assert found.id == derived_id("events.raw", 7, 99, 1767225600000)
    assert found.occurred_at == 1767225600000
    assert accepted(body(id="e-1"), headers=REPLAYED).id == "e-1"
    timed = accepted(body(timestamp="2026-01-01T12:00:00Z"), headers=REPLAYED)
    assert (timed.id, timed.occurred_at) == (found.id, NOON)


def test_a_replayed_original_without_a_timestamp_says_so() -> None:
    """Its derived id is that of the original; there is no time to take from it."""
    headers = (*REPLAYED[:3], ("original-timestamp", b"-1"))
    timed = body(timestamp="2026-01-01T12:00:00Z")
    assert accepted(timed, headers=headers).id == derived_id("events.raw", 7, 99, None)
    assert refused(body(), headers=headers).error == "missing_field"


def test_the_bound_on_the_future_is_the_records_own() -> None:
    """A header cannot carry an event further into the future than its record stands for."""
    headers = (*REPLAYED[:3], ("original-timestamp", str(NOON + HOUR + 1).encode()))
    assert refused(body(), headers=headers).error == "too_far_in_future"


@pytest.mark.parametrize("name", [name for name, _ in REPLAYED])
@pytest.mark.parametrize("value", [None, b"", b"\xff", b"x y", b"+2", b"1" * 250])
def test_original_headers_that_are_not_all_well_formed_are_ignored(
    name: str, value: bytes | None
) -> None:
    """A producer may send headers of the same name for its own ends."""
    replaced = ((key, value if key == name else held) for key, held in REPLAYED)
    headers = tuple((key, held) for key, held in replaced if held is not None)
    found = accepted(body(), headers=headers)
    assert (found.id, found.occurred_at) == (event().id, NOON)


def test_other_headers_change_nothing() -> None:
    """Tracing headers are everywhere."""
    assert accepted(body(), headers=(("traceparent", b"00"),)).id == event().id
