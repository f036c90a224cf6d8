"""What crosses a boundary: the models accept exactly what the contract says, and the documents made of them are fresh."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import BaseModel, ValidationError

import schemas
from processor.pure import enrich, parse
from processor.pure.faults import Fault
from processor.pure.letters import dead_letter
from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow, Rejected
from schemas.examples import EXAMPLES
from schemas.generate import DIRECTORY, documents
from tests.traffic_bad import BAD, ODD_BUT_GOOD
from tests.unit.json_texts import event_texts
from tests.unit.parse_records import ASKED, BODY, merged, record

FROZEN = json.loads(Path(__file__).with_name("enriched_event_v1.json").read_text())
ENRICHED = [dict(found) for found in EXAMPLES["EnrichedEvent"]]
ORGANIC, INORGANIC, GROUPED, MATCHED = ENRICHED
LETTER = dict(EXAMPLES["DeadLetter"][0])


def test_the_generated_documents_are_what_the_models_say() -> None:
    """``python -m schemas`` writes them anew."""
    expected = documents()
    found = [*(DIRECTORY / "generated").glob("*.json"), DIRECTORY / "asyncapi.json"]
    assert {path: path.read_text() for path in found} == expected


def test_within_a_schema_version_an_enriched_event_only_gains_fields() -> None:
    """A reader of version 1 reads all that is ever published as version 1."""
    assert schemas.SCHEMA_VERSION == 1
    now = schemas.EnrichedEvent.model_json_schema()
    assert {name: now["properties"][name] for name in FROZEN["properties"]} == FROZEN["properties"]
    assert set(now["required"]) >= set(FROZEN["required"])
    for name, frozen in FROZEN["$defs"].items():
        kept = {field: now["$defs"][name]["properties"][field] for field in frozen["properties"]}
        assert kept == frozen["properties"]
        assert set(now["$defs"][name]["required"]) >= set(frozen["required"])


def test_the_worker_says_the_schema_version_of_the_models() -> None:
    """The header and the model change together."""
    assert str(schemas.SCHEMA_VERSION).encode() == enrich.SCHEMA_VERSION


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_example_is_read(name: str) -> None:
    """Those of the documents are good ones."""
    for found in EXAMPLES[name]:
        read = getattr(schemas, name).model_validate(found)
        assert read.model_dump(mode="json", exclude_unset=True) == found


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_reader_ignores_fields_it_does_not_know(name: str) -> None:
    """So that the writer can be upgraded first."""
    found = dict(EXAMPLES[name][0])
    model = getattr(schemas, name)
    assert model.model_validate({**found, "new": 1}) == model.model_validate(found)


def test_models_are_frozen() -> None:
    """What was read does not change."""
    event = schemas.RawEvent.model_validate(BODY)
    with pytest.raises(ValidationError, match="frozen"):
        event.org_unit = "other"  # type: ignore[misc]


def alike(data: bytes) -> None:
    """The model and the worker's own reader accept, refuse and read the same."""
    theirs = parse.read(data)
    try:
        ours = schemas.RawEvent.from_json(data)
    except ValueError:
        assert isinstance(theirs, Fault)
        return
    assert not isinstance(theirs, Fault), theirs
    assert (ours.org_unit, ours.id, ours.lead_id) == (theirs.org_unit, theirs.id, theirs.lead_id)
    assert schemas.normalise_event_type(ours.event_type) == theirs.event_type
    assert ours.occurred_at == theirs.occurred_at
    assert repr(ours.metadata) == repr(theirs.metadata)


@pytest.mark.parametrize("kind", sorted(BAD | ODD_BUT_GOOD))
def test_model_and_worker_read_every_kind_of_odd_message_alike(kind: str) -> None:
    """The worker's reader is faster, not different."""
    data = (BAD | ODD_BUT_GOOD)[kind](dict(BODY))
    if data is not None:
        alike(data)


@given(event_texts())
@example('{"org_unit":"a","lead_id":"b","event_type":"c","metadata":{"n":-0.0,"e":1e-400}}')
@example('{"org_unit":"a","lead_id":"b","event_type":"c","timestamp":null,"created_at":"x"}')
@example('{"org_unit":"a","lead_id":"b","event_type":"c","created_at":5,"timestamp":"x"}')
def test_model_and_worker_read_any_event_text_alike(text: str) -> None:
    """Any values in any members, repeated ones too."""
    alike(text.encode())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"kind": "unmerge"},
        {"kind": None, "requested_by": None},
        {"requested_by": "ann"},
        {"source_lead_ids": ["a"] * 500},
        {"source_lead_ids": ["a"] * 501},
        {"source_lead_ids": []},
        {"source_lead_ids": ["a", ""]},
        {"source_lead_ids": ["a", 1]},
        {"source_lead_ids": ["x" * 129]},
        {"source_lead_ids": ["a\0"]},
        {"source_lead_ids": "a"},
        {"source_lead_ids": None},
        {"target_lead_id": ""},
        {"target_lead_id": 7},
        {"org_unit": None},
        {"kind": "split"},
        {"kind": True},
        {"requested_by": 1},
        {"requested_by": "a\0"},
        {"extra": [1]},
    ],
)
def test_model_and_worker_read_merge_commands_alike(changed: dict[str, Any]) -> None:
    """The two agree on what is one, and on what it says."""
    data = json.dumps(ASKED | changed).encode()
    theirs = merged(data)
    try:
        ours = schemas.MergeCommand.from_json(data)
    except ValueError:
        assert isinstance(theirs, Rejected)
        return
    assert not isinstance(theirs, Rejected), theirs
    assert (ours.org_unit, ours.target_lead_id) == (theirs.org_unit, theirs.target_lead_id)
    assert tuple(dict.fromkeys(ours.source_lead_ids)) == theirs.source_lead_ids
    assert (ours.requested_by, ours.kind) == (theirs.requested_by, theirs.kind)


TIMED = {"timestamp": "2024-05-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("model", "fields", "good"),
    [
        *(
            (schemas.RawEvent, BODY | {name: None}, True)
            for name in ("id", "timestamp", "created_at")
        ),
        (schemas.RawEvent, BODY | {"metadata": None}, True),
        (schemas.RawEvent, BODY | TIMED | {"created_at": 5}, True),
        (schemas.RawEvent, BODY | TIMED | {"created_at": None}, True),
        (schemas.RawEvent, BODY | {"created_at": 5}, False),
        (schemas.RawEvent, BODY | {"timestamp": None, "created_at": 5}, False),
        (schemas.RawEvent, BODY | {"timestamp": 5}, False),
        (schemas.RawEvent, BODY | {"timestamp": 5, "created_at": "2024-05-01T12:00:00Z"}, False),
        (schemas.RawEvent, BODY | {"metadata": []}, False),
        *((schemas.RawEvent, BODY | {name: None}, False) for name in BODY),
        (schemas.MergeCommand, ASKED | {"kind": None, "requested_by": None}, True),
        (schemas.MergeCommand, ASKED | {"kind": "unmerge"}, True),
        (schemas.MergeCommand, ASKED | {"kind": "split"}, False),
        *((schemas.MergeCommand, ASKED | {name: None}, False) for name in ASKED),
    ],
)
def test_the_published_schema_takes_what_is_read(
    model: type[BaseModel], fields: dict[str, Any], good: bool
) -> None:
    """An optional field given as null is absent; `created_at` is not looked at where `timestamp` is given."""
    data, name = json.dumps(fields).encode(), model.__name__
    asyncapi = json.loads((DIRECTORY / "asyncapi.json").read_text())
    in_topic = {"$ref": f"#/components/schemas/{name}", "components": asyncapi["components"]}
    for schema in (json.loads((DIRECTORY / "generated" / f"{name}.json").read_text()), in_topic):
        assert jsonschema_rs.is_valid(schema, fields) is good
    reading = merged if model is schemas.MergeCommand else parse.read
    assert isinstance(reading(data), Fault | Rejected) is not good


@pytest.mark.parametrize("kind", sorted(ODD_BUT_GOOD))
def test_the_published_schema_takes_every_odd_message_that_is_good(kind: str) -> None:
    """In the fields that it knows: others may hold what no schema can be asked about."""
    data = ODD_BUT_GOOD[kind](dict(BODY))
    fields = schemas.RawEvent.from_json(data or b"").model_dump(exclude_unset=True)
    schema = json.loads((DIRECTORY / "generated" / "RawEvent.json").read_text())
    assert jsonschema_rs.is_valid(schema, fields)


def test_an_event_of_a_merge_may_have_more_metadata_than_producers_send() -> None:
    """500 sources of 128 characters, each of two bytes."""
    sources = [f"{n:03d}" + "я" * 125 for n in range(500)]
    metadata = {"source_lead_ids": sources, "events_moved": 5, "requested_by": None}
    merge = ORGANIC | {"event_type": "Lead Merged", "metadata": metadata}
    assert len(json.dumps(metadata, ensure_ascii=False).encode()) > 102_400
    assert schemas.EnrichedEvent.model_validate(merge).metadata == metadata
    at = datetime(2024, 5, 1, tzinfo=UTC)
    times = {"occurred_at": at, "received_at": at, "deleted_at": None}
    place = {"source_partition": 0, "source_offset": 0}
    assert schemas.EventRow.model_validate(merge | times | place).metadata == metadata
    with pytest.raises(ValidationError, match="102400 bytes"):
        schemas.RawEvent.model_validate(BODY | {"metadata": metadata})


@pytest.mark.parametrize("good", ENRICHED, ids=["organic", "velocity", "burst", "attribute"])
def test_what_the_worker_publishes_is_an_enriched_event(good: dict[str, Any]) -> None:
    """Field by field what the model says, and no field more."""
    times = {"created_at": to_text(1_714_557_600_000), "received_at": to_text(1_714_557_600_250)}
    stored = EnrichedRow(
        **(good | times | {"metadata": Raw(json.dumps(good["metadata"]).encode())})
    )
    written = json.loads(enrich.enriched(stored))
    assert written == good
    assert schemas.EnrichedEvent.model_validate(written).model_dump(mode="json") == good
    names = {name: value.decode() for name, value in enrich.headers(stored)}
    assert schemas.EnrichedHeaders.model_validate(names).event_id == good["id"]


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        (ORGANIC, {"suppression_reason": "robot"}),
        (ORGANIC, {"suppression_reason": "inorganic"}),
        (ORGANIC, {"suppressed_by": INORGANIC["suppressed_by"]}),
        (ORGANIC, {"original_lead_id": "lead-1"}),
        (ORGANIC, {"created_at": "2024-05-01T10:00:00Z"}),
        (ORGANIC, {"created_at": "2024-05-01T10:00:00.000+00:00"}),
        (ORGANIC, {"created_at": "2024-13-01T10:00:00.000Z"}),
        (ORGANIC, {"received_at": 1714557600000}),
        (ORGANIC, {"metadata": None}),
        (ORGANIC, {"metadata": {"n": float("nan")}}),
        (ORGANIC, {"lead_id": 7}),
        (INORGANIC, {"suppressed_by": GROUPED["suppressed_by"]}),
        (INORGANIC, {"suppressed_by": MATCHED["suppressed_by"]}),
        (GROUPED, {"suppressed_by": INORGANIC["suppressed_by"]}),
        (MATCHED, {"suppressed_by": {**MATCHED["suppressed_by"], "filter_version": 0}}),
        (MATCHED, {"suppressed_by": {**MATCHED["suppressed_by"], "filter_id": "MF"}}),
        (MATCHED, {"suppressed_by": {}}),
        (MATCHED, {"suppressed_by": []}),
    ],
)
def test_a_wrong_enriched_event_is_refused(good: dict[str, Any], wrong: dict[str, Any]) -> None:
    """Reason and filter belong together; times have one spelling."""
    with pytest.raises(ValidationError):
        schemas.EnrichedEvent.model_validate({**good, **wrong})


@pytest.mark.parametrize("name", sorted(ORGANIC))
def test_every_field_of_an_enriched_event_is_there(name: str) -> None:
    """Null is said, never left out."""
    with pytest.raises(ValidationError, match="Field required"):
        schemas.EnrichedEvent.model_validate({k: v for k, v in ORGANIC.items() if k != name})


@pytest.mark.parametrize("payload", [b"\xff{", b"", None])
@pytest.mark.parametrize("room", [10_000, 10])
def test_what_the_worker_sends_to_the_dead_topic_is_a_dead_letter(
    payload: bytes | None, room: int
) -> None:
    """The payload comes back from it, or its hash where it does not fit."""
    rejected = Rejected(record(payload), "parse", "not_json", "The value is not JSON.")
    letter = schemas.DeadLetter.model_validate_json(dead_letter(rejected, room))
    assert (letter.topic, letter.partition, letter.offset) == ("events.raw", 3, 14)
    if letter.payload_base64 is not None:
        assert base64.b64decode(letter.payload_base64) == payload
    assert (letter.payload_sha256 is not None) == (payload is not None and room == 10)


@pytest.mark.parametrize(
    "wrong",
    [{"stage": "lost"}, {"error": "Not JSON"}, {"offset": -1}, {"partition": "0"}, {"reason": ""}],
)
def test_a_wrong_dead_letter_is_refused(wrong: dict[str, Any]) -> None:
    """Stage and error are codes, coordinates are numbers."""
    with pytest.raises(ValidationError):
        schemas.DeadLetter.model_validate({**LETTER, **wrong})


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" _-\t\x85\u2003aB")))
def test_an_event_type_is_title_case_words(text: str) -> None:
    """Runs of whitespace, ``_`` and ``-`` separate words; each is capitalised; one space joins."""
    separated = "".join(" " if c.isspace() or c in "_-" else c for c in text)
    assert schemas.normalise_event_type(text) == " ".join(
        word.capitalize() for word in separated.split()
    )


@given(
    st.text(
        st.sampled_from("ßŉİﬃǰΣςσaB _-\t") | st.characters(exclude_categories=["Cs"]), max_size=128
    )
)
@example("ß" + "a" * 127)
@example("ŉ" * 128)
@example("ŉ " * 64)
@example("xİ" * 64)
def test_a_stored_type_can_be_spelled_so_that_it_may_be_sent(text: str) -> None:
    """What is exported and applied again, or looked for, is the same type, whatever title case makes of it."""
    stored = schemas.normalise_event_type(text)
    spelled = schemas.spelling(stored)
    assert len(stored) <= 384
    assert len(spelled) <= 128
    assert schemas.normalise_event_type(spelled) == stored
    assert schemas.stored_name(stored) == stored
    if len(text) <= 128 and "\u0149" not in text and "\u02bc" not in text:
        assert schemas.stored_name(text) == stored


def test_a_type_that_needs_no_other_spelling_has_none() -> None:
    """A person reads it in the file."""
    for stored in ("Page View", "Sso Login", "Staff Fill", "", "ʼn Dag"):
        assert schemas.spelling(stored) == stored
    for sent in ("page_view", "x" * 129):
        assert schemas.spelling(sent) == sent
    assert schemas.spelling("t" * 385) == "t" * 385
