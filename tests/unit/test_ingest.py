"""A body of ``POST /ingest`` becomes messages of which a worker makes what it makes of the elements themselves."""

import json

import pytest
from hypothesis import given

from processor.pure import ingest
from processor.pure.faults import Fault
from processor.pure.parse import parse
from processor.pure.types import Event, Rejected
from tests.traffic_bad import BAD, ODD_BUT_GOOD
from tests.unit.json_texts import event_texts
from tests.unit.parse_records import BODY, HOUR, NOON, kept, record

ACCEPTING = ingest.Accepting("acme", NOON, HOUR)
TIMED = BODY | {"timestamp": "2026-01-01T12:00:00Z"}


def agree(element: bytes) -> None:
    """The element alone and in an array is what its producer's message would be: an event, or refused for the same."""
    direct = parse(record(element.rstrip()[:-1] + b',"org_unit":"acme"}'), HOUR)
    for path, body in (("", element), ("[0]", b" [" + element + b"]")):
        found = ingest.read(body, ACCEPTING)
        if isinstance(found, Fault):
            assert isinstance(direct, Rejected), found
            assert found.error == direct.error
            assert found.reason.startswith(path) or direct.stage == "parse"
        else:
            assert isinstance(direct, Event), direct
            (event,) = found
            assert event.path == path
            assert kept(sent(event, direct.id)) == kept(direct)


def sent(event: ingest.Submitted, derived_id: str) -> Event:
    """What a worker makes of its message."""
    value = ingest.message(event, "acme", event.id or derived_id)
    received = parse(record(value), HOUR)
    assert isinstance(received, Event), received
    return received


@given(event_texts())
def test_any_element_is_what_its_message_would_be(text: str) -> None:
    """Whatever its fields hold."""
    agree(text.encode())


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_what_only_looks_bad_is_accepted_alike(name: str) -> None:
    """Odd numbers, keys, texts and times."""
    value = ODD_BUT_GOOD[name](TIMED)
    assert value is not None
    agree(value)


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_refused_for_the_same(name: str) -> None:
    """What the fast decoder would have read as something else included; of text that is no object nothing more is asked."""
    value = BAD[name](TIMED)
    if value is not None and value.rstrip().endswith(b"}"):
        agree(value)


@pytest.mark.parametrize("levels", [510, 511, 512])
@pytest.mark.parametrize("inner", ["0", "NaN"])
def test_an_element_may_be_nested_as_deep_in_an_array_as_alone(levels: int, inner: str) -> None:
    """Its array is no level of it."""
    deep = "[" * levels + inner + "]" * levels
    agree(f'{json.dumps(BODY)[:-1]},"unknown":{deep}}}'.encode())


def test_a_type_whose_normal_form_has_another_one_goes_on_as_it_was_given() -> None:
    """Such as ŉ, a capital of which is two letters."""
    agree(json.dumps(BODY | {"event_type": "ŉa"}).encode())


def test_a_body_has_1_to_1000_events() -> None:
    """The bounds themselves are within."""
    for number in (0, 1, 1_000, 1_001):
        found = ingest.read(json.dumps([BODY] * number).encode(), ACCEPTING)
        assert isinstance(found, Fault) == (number in (0, 1_001))
