"""What a raw record must say, what it may leave out, and how a bad one is refused."""

import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from processor.pure.jsontext import LARGEST
from processor.pure.parse import parse
from processor.pure.types import Event, Rejected
from tests.unit.parse_records import (
    ASKED,
    BODY,
    HOUR,
    NOON,
    accepted,
    event,
    kept,
    merged,
    record,
    refused,
    spliced,
)

FIELDS = ["org_unit", "lead_id", "event_type"]
LONGEST = {"org_unit": 64, "lead_id": 128, "event_type": 128, "id": 128}


def parse_raw(value: bytes) -> Event | Rejected:
    """What a record of the raw topic says."""
    return parse(record(value), HOUR)


def body(**fields: Any) -> bytes:
    """A good event with these fields, as JSON."""
    return json.dumps(BODY | fields).encode()


def test_an_event_has_what_its_record_says() -> None:
    """Nothing is trimmed, translated or added but the spelling of the event type."""
    raw = record(body(id=" e-1 ", timestamp="2026-01-01T12:00:00.5Z", metadata={"a": 1}))
    found = parse(raw, HOUR)
    assert not isinstance(found, Rejected)
    assert found.record is raw
    assert (found.org_unit, found.id, found.lead_id) == ("acme", " e-1 ", "lead-1")
    assert (found.event_type, found.occurred_at) == ("Page View", NOON + 500)
    assert (found.metadata, found.metadata_json) == ({"a": 1}, b'{"a":1}')


def test_unknown_fields_are_ignored() -> None:
    """An event may carry fields of a later version, and fields that only rows have."""
    assert kept(event(score=5, suppression_reason="inorganic", record=[None])) == kept(event())


@pytest.mark.parametrize(
    "text",
    [
        '"\\u0000"',
        '"\\ud800"',
        '{"\\udc00": "\\u0000"}',
        "NaN",
        "[Infinity, -Infinity]",
        "1e400",
        "18446744073709551616",
        "-" + "9" * 6_000,
        "[" * 500 + "]" * 500,
        "[" + "[]," * 600 + "0]",
        '"' + "[" * 2_000 + '"',
    ],
    ids=lambda text: text[:24],
)
def test_an_unknown_field_may_hold_what_nothing_kept_may(text: str) -> None:
    """What nobody keeps refuses nobody, whichever decoder has to read it."""
    found = accepted(spliced("unknown", text))
    assert (found.lead_id, found.metadata) == ("lead-1", {})


@pytest.mark.parametrize("name", ["id", "timestamp", "created_at", "metadata"])
def test_an_optional_field_given_as_null_is_absent(name: str) -> None:
    """Producers write null for what they do not know."""
    assert kept(event(**{name: None})) == kept(event())


def test_metadata_is_an_empty_object_by_default() -> None:
    """Absent metadata meets no condition but those about missing keys."""
    assert (event().metadata, event().metadata_json) == ({}, b"{}")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("fields", [{}, {"value": None}], ids=["absent", "null"])
def test_a_required_field_that_is_absent_or_null_is_refused_by_name(
    name: str, fields: dict[str, None]
) -> None:
    """Null is absent for required fields too."""
    rest = {key: value for key, value in BODY.items() if key != name}
    refusal = refused(json.dumps(rest | dict.fromkeys([name] * len(fields))).encode())
    assert (refusal.stage, refusal.error) == ("validate", "missing_field")
    assert refusal.reason == f"{name} is required."


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("value", [1, 1.5, True, ["acme"], {"a": 1}])
def test_nothing_is_coerced_to_a_string(name: str, value: object) -> None:
    """A number is no id, even where its text would be one."""
    refusal = refused(body(**{name: value}))
    assert (refusal.stage, refusal.error) == ("validate", "wrong_type")
    assert refusal.reason == f"{name} must be a string."


@pytest.mark.parametrize(("name", "longest"), LONGEST.items())
def test_lengths_are_in_code_points_of_the_raw_value(name: str, longest: int) -> None:
    """The longest of four bytes a character is taken, one more is not, nor is the empty string."""
    assert kept(event(**{name: "😀" * longest})) != kept(event(**{name: "a" * longest}))
    for wrong in ("", "😀" * (longest + 1), "a" * (longest + 1)):
        refusal = refused(body(**{name: wrong}))
        assert (refusal.error, refusal.stage) == ("bad_length", "validate")
        assert refusal.reason == f"{name} must have 1 to {longest} characters."


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("text", ["a\0b", "a\ud800", "\udfff"], ids=ascii)
def test_nul_and_lone_surrogates_are_refused_in_what_is_kept(name: str, text: str) -> None:
    """No store and no UTF-8 can hold them."""
    refusal = refused(body(**{name: text}))
    assert (refusal.stage, refusal.error) == ("validate", "bad_text")
    assert refusal.reason == f"{name} holds NUL or a lone surrogate."


def test_a_pair_of_escaped_surrogates_is_one_character() -> None:
    """JSON writes characters beyond the first plane so."""
    assert accepted(spliced("id", '"\\ud83d\\ude00"')).id == "😀"


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("page_view", "Page View"),
        ("Page View", "Page View"),
        ("  page\t\n-_-VIEW_", "Page View"),
        ("ÉCRAN_vu", "Écran Vu"),
        ("x", "X"),
    ],
)
def test_an_event_type_is_stored_as_title_case_words(raw: str, stored: str) -> None:
    """Twins of a type are one type."""
    assert event(event_type=raw).event_type == stored


def test_an_event_type_of_separators_alone_is_refused() -> None:
    """Nothing would be left to watch."""
    refusal = refused(body(event_type=" _-\u2003"))
    assert (refusal.stage, refusal.error) == ("validate", "no_event_type")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "no_value"),
        (b"", "not_json"),
        (b" ", "not_json"),
        (b"{", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"{} {}", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": "\x01"}', "not_json"),
        (b'{"a": 01}', "not_json"),
        (b"\xff", "not_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
        ('{"a": 1}'.encode("utf-16"), "not_utf8"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"NaN", "not_an_object"),
        (b'"{}"', "not_an_object"),
        (b"[" * 100_000, "nested_too_deep"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "nested_too_deep"),
        (spliced("unknown", "[" * 512 + "]" * 512), "nested_too_deep"),
    ],
)
def test_bytes_that_are_no_json_object_are_refused_at_stage_parse(
    value: bytes | None, error: str
) -> None:
    """Everything that is no object, however it fails, is one kind of bad."""
    refusal = refused(value)
    assert (refusal.stage, refusal.error) == ("parse", error)
    assert refusal.reason.endswith(".")


@pytest.mark.parametrize(("good", "read"), [(BODY, parse_raw), (ASKED, merged)])
def test_a_value_of_more_than_4_mb_is_refused_whatever_it_is(
    good: dict[str, Any], read: Callable[[bytes], object]
) -> None:
    """To look at it would take seconds in which nothing else is done; one of 4 MB is as good as any."""
    text = json.dumps(good).encode()
    for value in (text, text.replace(b"lead-1", b"\xff"), b"[" * 600):
        refusal = read(value.ljust(LARGEST + 1))
        assert isinstance(refusal, Rejected)
        assert (refusal.stage, refusal.error) == ("parse", "too_large")
        assert refusal.reason == "The value has more than 4 MB."
    assert not isinstance(read(text.ljust(LARGEST)), Rejected)


def test_a_text_may_have_512_levels_in_what_is_not_kept() -> None:
    """The object itself is the first."""
    for text in ("[" * 511 + "NaN" + "]" * 511, '["\\"[\\\\", ' + "[" * 510 + "]" * 511):
        assert accepted(spliced("unknown", text)).lead_id == "lead-1"


def test_a_call_stack_that_is_nearly_used_up_refuses_deep_texts_only() -> None:
    """Even then nothing is raised."""

    def below(frames: int, value: bytes) -> Event | Rejected:
        return below(frames - 1, value) if frames else parse(record(value), HOUR)

    room = sys.getrecursionlimit() - len(inspect.stack(0)) - 100
    deep = below(room, spliced("unknown", "[" * 500 + "NaN" + "]" * 500))
    assert isinstance(deep, Rejected)
    assert deep.error == "nested_too_deep"
    assert isinstance(below(room, spliced("unknown", "[NaN]")), Event)


def test_of_duplicate_keys_the_last_wins() -> None:
    """Both decoders agree, also where the first one alone would be refused."""
    assert accepted(spliced("lead_id", '"lead-2"')).lead_id == "lead-2"
    assert accepted(spliced("id", '1e400, "id": "e-1"')).id == "e-1"
    assert refused(spliced("id", '"e-1", "id": 5')).error == "wrong_type"
