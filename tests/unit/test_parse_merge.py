"""What a record of the merge topic must say."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from processor.pure.faults import Fault
from processor.pure.parse import derived_id
from processor.pure.parse import merge_asked as merge_asked_over_http
from processor.pure.types import MergeCommand, Rejected
from tests.oracle_leads import MergeAsked, merge_asked
from tests.oracle_parse import RefusedError
from tests.unit.json_texts import request_texts
from tests.unit.parse_records import ASKED, NOON, merged, record


def asked(**fields: Any) -> bytes:
    """A good request with these fields, as JSON."""
    return json.dumps(ASKED | fields).encode()


def command(value: bytes, **more: Any) -> MergeCommand:
    """The command of the bytes, which are good."""
    found = merged(value, **more)
    assert isinstance(found, MergeCommand), found
    return found


def refused(value: bytes | None, **more: Any) -> Rejected:
    """Why the bytes, which are bad, are refused."""
    found = merged(value, **more)
    assert isinstance(found, Rejected), found
    return found


def test_a_request_merges_unless_it_says_otherwise() -> None:
    """Its id and time are those of its record."""
    found = command(asked(unknown=float("nan")))
    assert (found.org_unit, found.target_lead_id) == ("acme", "lead-1")
    assert found.source_lead_ids == ("lead-2", "lead-3")
    assert (found.kind, found.requested_by, found.occurred_at) == ("merge", None, NOON)
    assert found.message_id == derived_id("events.raw", 3, 14, NOON)
    assert command(asked(kind=None, requested_by=None)).kind == "merge"
    assert command(asked(kind="unmerge", requested_by="ann")).kind == "unmerge"
    assert command(asked(requested_by="a" * 128)).requested_by == "a" * 128


def test_repeats_among_the_sources_are_dropped() -> None:
    """The first of them keeps its place."""
    assert command(asked(source_lead_ids=["b", "a", "b", "c", "a"])).source_lead_ids == (
        "b",
        "a",
        "c",
    )
    assert command(asked(source_lead_ids=["a"] * 500)).source_lead_ids == ("a",)


def test_a_replayed_request_is_the_same_request() -> None:
    """Its headers name the original."""
    headers = (
        ("original-topic", b"leads.merges"),
        ("original-partition", b"0"),
        ("original-offset", b"5"),
        ("original-timestamp", b"17"),
    )
    found = command(asked(), headers=headers, timestamp=None)
    assert (found.message_id, found.occurred_at) == (derived_id("leads.merges", 0, 5, 17), 17)


@pytest.mark.parametrize(
    ("fields", "error", "path"),
    [
        ({"org_unit": None}, "missing_field", "org_unit"),
        ({"org_unit": "a" * 65}, "bad_length", "org_unit"),
        ({"target_lead_id": 5}, "wrong_type", "target_lead_id"),
        ({"target_lead_id": "\0"}, "bad_text", "target_lead_id"),
        ({"source_lead_ids": None}, "missing_field", "source_lead_ids"),
        ({"source_lead_ids": "lead-2"}, "wrong_type", "source_lead_ids"),
        ({"source_lead_ids": {"a": 1}}, "wrong_type", "source_lead_ids"),
        ({"source_lead_ids": []}, "bad_length", "source_lead_ids"),
        ({"source_lead_ids": ["a"] * 501}, "bad_length", "source_lead_ids"),
        ({"source_lead_ids": ["a", None]}, "wrong_type", "source_lead_ids[1]"),
        ({"source_lead_ids": ["a", ""]}, "bad_length", "source_lead_ids[1]"),
        ({"source_lead_ids": ["b" * 129]}, "bad_length", "source_lead_ids[0]"),
        ({"source_lead_ids": ["a", "b", "\ud800"]}, "bad_text", "source_lead_ids[2]"),
        ({"requested_by": 5}, "wrong_type", "requested_by"),
        ({"requested_by": ""}, "bad_length", "requested_by"),
        ({"requested_by": "a" * 129}, "bad_length", "requested_by"),
        ({"kind": "join"}, "bad_value", "kind"),
        ({"kind": ["merge"]}, "bad_value", "kind"),
    ],
)
def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], error: str, path: str) -> None:
    """With its place in the array."""
    refusal = refused(asked(**fields))
    assert (refusal.stage, refusal.error) == ("validate", error)
    assert refusal.reason.startswith(f"{path} ")


@pytest.mark.parametrize(
    ("value", "error"),
    [(None, "no_value"), (b"{", "not_json"), (b"[]", "not_an_object"), (b"\xff", "not_utf8")],
)
def test_what_is_no_object_is_refused_at_stage_parse(value: bytes | None, error: str) -> None:
    """As on the raw topic."""
    refusal = refused(value)
    assert (refusal.stage, refusal.error) == ("parse", error)


def test_a_request_needs_the_time_of_its_record() -> None:
    """The event on the timeline occurs then."""
    for none in (None, -1):
        refusal = refused(asked(), timestamp=none)
        assert (refusal.stage, refusal.error) == ("validate", "missing_field")
    assert refused(asked(), timestamp=253_402_300_800_000).error == "bad_timestamp"


def expected(value: bytes) -> MergeAsked | None:
    """The request as the oracle reads it, None where it refuses."""
    try:
        return merge_asked(record(value))
    except RefusedError:
        return None


@settings(max_examples=50)
@given(request_texts())
def test_requests_are_read_as_the_contract_says(text: str) -> None:
    """By an oracle that only follows its text."""
    value = text.encode()
    found, oracle = merged(value), expected(value)
    if isinstance(found, Rejected):
        # The contract leaves open what requested_by may be: here it is as long as an id.
        assert oracle is None or found.reason.startswith("requested_by ")
        return
    assert oracle is not None, found
    assert (found.org_unit, found.target_lead_id, found.kind) == (
        oracle.org_unit,
        oracle.target,
        oracle.kind,
    )
    assert (found.source_lead_ids, found.requested_by) == (oracle.sources, oracle.requested_by)


@settings(max_examples=50)
@given(request_texts())
def test_the_api_accepts_of_leads_what_the_topic_accepts(text: str) -> None:
    """In its own spelling; what it hands on can never become a dead letter."""
    said = json.loads(text)
    names = {"target_lead_id": "targetLeadId", "source_lead_ids": "sourceLeadIds"}
    found = merge_asked_over_http({names[name]: said[name] for name in names})
    leads = {name: said[name] for name in names}
    handed_on = merged(json.dumps({"org_unit": "acme", **leads}).encode())
    if isinstance(handed_on, MergeCommand):
        assert found == (handed_on.target_lead_id, handed_on.source_lead_ids)
        return
    assert isinstance(found, Fault)
    renamed = handed_on.reason
    for theirs, ours in names.items():
        renamed = renamed.replace(theirs, ours)
    assert found.reason == renamed
