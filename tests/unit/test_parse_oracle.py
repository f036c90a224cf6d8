"""Any bytes at all are read as the contract says, by an oracle that only follows its text, and alike by both decoders."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.pure.parse import Fields, derived_id, parse, read
from processor.pure.types import Event, Rejected
from tests import oracle_parse
from tests.oracle_parse import Message, Raw, RefusedError
from tests.traffic_bad import BAD, ODD_BUT_GOOD
from tests.unit.json_texts import VALUES, event_texts
from tests.unit.parse_records import BODY, HOUR, NOON, exactly, record, said

TIMED = BODY | {"timestamp": "2026-01-01T12:00:00Z"}


def derive(message: Message) -> str:
    """The id of a message that names none."""
    return derived_id(*message.place)


def unsigned(value: Any) -> Any:
    """The same with every zero unsigned."""
    if isinstance(value, dict):
        return {key: unsigned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unsigned(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def expected(message: Message) -> Raw | frozenset[str]:
    """The event as the oracle reads it, or the stages its refusal may name."""
    try:
        return oracle_parse.read(message, HOUR, derive)
    except RefusedError as error:
        return error.stages


def agree(value: bytes | None, timestamp: int | None = NOON) -> Event | Rejected:
    """Parse and oracle say the same of the bytes; gives what they say."""
    message = record(value, timestamp)
    found, raw = parse(message, HOUR), expected(message)
    if isinstance(found, Rejected):
        assert isinstance(raw, frozenset), found
        assert found.stage in raw
        return found
    assert isinstance(raw, Raw), found
    said_by_both = (found.org_unit, found.id, found.lead_id, found.event_type, found.occurred_at)
    assert said_by_both == (raw.org_unit, raw.id, raw.lead_id, raw.event_type, raw.at)
    kept = repr(unsigned(raw.metadata))
    assert repr(found.metadata) == repr(json.loads(found.metadata_json)) == kept
    return found


@pytest.mark.parametrize("name", BAD)
def test_bad_messages_of_every_kind_are_refused(name: str) -> None:
    """At the stage the contract allows."""
    assert isinstance(agree(BAD[name](TIMED)), Rejected)


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_messages_that_only_look_bad_are_read(name: str) -> None:
    """As the oracle reads them."""
    assert isinstance(agree(ODD_BUT_GOOD[name](TIMED)), Event)


@settings(max_examples=50)
@given(event_texts(), st.sampled_from([NOON, None, -1]))
def test_json_texts_are_read_as_the_contract_says(text: str, timestamp: int | None) -> None:
    """Whatever their fields hold."""
    agree(text.encode(), timestamp)


@settings(max_examples=50)
@given(VALUES | event_texts())
def test_both_decoders_read_alike(text: str) -> None:
    """Where the fast one accepts, the exact one accepts the same; where it does not, the exact one decides."""
    value = text.encode()
    assert said(read(value)) == said(exactly(value))


@pytest.mark.parametrize("name", [*BAD, *ODD_BUT_GOOD])
def test_both_decoders_read_the_adversarial_corpus_alike(name: str) -> None:
    """Every message that is bad, or only looks so."""
    value = (BAD | ODD_BUT_GOOD)[name](TIMED)
    if value is not None:
        assert said(read(value)) == said(exactly(value))


@settings(max_examples=40)
@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_read(value: bytes) -> None:
    """Never an exception."""
    agree(value)


@settings(max_examples=40)
@given(event_texts(1), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3))
def test_an_event_with_damaged_bytes_is_refused_or_read(
    text: str, damages: list[tuple[int, bytes]]
) -> None:
    """Each damage replaces one byte by up to three."""
    value = text.encode()
    for place, bytes_ in damages:
        at = place % len(value)
        value = value[:at] + bytes_ + value[at + 1 :] or b" "
    agree(value)
    assert said(read(value)) == said(exactly(value))


COMPLETE: dict[str, Any] = {**TIMED, "id": "e-1", "metadata": {"a": "b", "n": 1}}
TEXTS: tuple[Any, ...] = (
    "a" * 64,
    "a" * 65,
    "a" * 128,
    "a" * 129,
    "é",
    "a\0",
    "\ud800",
    "",
    " -_",
    1,
    None,
    [],
    {},
)
TIMES: tuple[Any, ...] = (
    "2026-01-01T13:00:00.5+01:00",
    "2026-01-01T13:00:00.001Z",
    "2026-01-01T13:00:00.002Z",
    "noon",
    "",
    None,
    0,
    [],
)
METADATA: tuple[Any, ...] = ({}, {"a": [1, {"b": None}]}, {"a": 0.5}, {"a": -0.0}, {"a": 2.0**63}, {"a": 2**64 - 1}, {"a": 2**64}, {"a": [2**63, -(2**63)]}, {"a": [2**64]}, {"a": {"b": -(2**63) - 1}}, {"a": "\0"}, {"a": '"\\'}, {"a": "é\x7f\x1f"}, {"a": "\ud800"}, {str(n): n for n in range(1001)}, None, [], 1)  # fmt: skip
ODD: tuple[dict[str, Any], ...] = (
    *({name: text} for name in ("org_unit", "id", "lead_id", "event_type") for text in TEXTS),
    *({"timestamp": one, "created_at": other} for one in TIMES for other in TIMES),
    *({"metadata": one} for one in METADATA),
    *({"unknown": one} for one in (*TEXTS, *METADATA)),
)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd)[:70])
@pytest.mark.parametrize("escaped", [True, False])
def test_events_that_have_everything_are_read_as_all_others(
    odd: dict[str, Any], escaped: bool
) -> None:
    """Most take a shorter way; what it cannot be sure of it leaves to the other one."""
    text = json.dumps(COMPLETE | odd, ensure_ascii=escaped)
    value = text.encode(errors="surrogatepass")
    found, proper = agree(value), read(value)
    if isinstance(found, Event):
        assert isinstance(proper, Fields)
        assert found.metadata_json == proper.metadata_json


@settings(max_examples=300)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=2))
def test_a_damaged_event_that_has_everything_is_read_as_the_oracle_reads_it(
    place: int, damage: bytes
) -> None:
    """Texts of fields that nobody knows included, which nobody looks at otherwise."""
    value = json.dumps(COMPLETE | {"unknown": ["text", {"é": "é"}]}, ensure_ascii=False).encode()
    at = place % len(value)
    agree(value[:at] + damage + value[at + 1 :])
