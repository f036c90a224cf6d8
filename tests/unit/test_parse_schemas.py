"""The fast way in accepts, refuses and reads exactly what the models in `schemas` do, which define the messages."""

import json
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.pure.faults import Fault
from processor.pure.jsontext import LARGEST
from processor.pure.parse import read
from processor.pure.types import Rejected
from schemas.messages import MergeCommand, RawEvent
from schemas.names import normalise_event_type
from tests.traffic_bad import BAD, ODD_BUT_GOOD
from tests.unit.json_texts import VALUES, event_texts, request_texts
from tests.unit.parse_records import BODY, merged

Model = TypeVar("Model", RawEvent, MergeCommand)
TIMED = BODY | {"timestamp": "2026-01-01T12:00:00Z"}


def modelled(model: type[Model], value: bytes) -> Model | None:
    """The message as its model reads it, None where that refuses it."""
    try:
        return model.from_json(value)
    except ValueError:
        return None


def agree(value: bytes) -> None:
    """Parse and model say the same of the bytes of a raw event."""
    found, raw = read(value), modelled(RawEvent, value)
    if isinstance(found, Fault):
        assert raw is None, found
        return
    assert raw is not None, found
    assert (found.org_unit, found.id, found.lead_id) == (raw.org_unit, raw.id, raw.lead_id)
    assert found.event_type == normalise_event_type(raw.event_type)
    assert found.occurred_at == raw.occurred_at
    assert repr(found.metadata) == repr(raw.metadata)


@pytest.mark.parametrize("name", [*BAD, *ODD_BUT_GOOD])
def test_parse_and_model_agree_on_the_adversarial_corpus(name: str) -> None:
    """Every message that is bad, or only looks so."""
    value = (BAD | ODD_BUT_GOOD)[name](TIMED)
    if value is not None:
        agree(value)


@settings(max_examples=50)
@given(VALUES | event_texts())
def test_parse_and_model_agree_on_any_raw_event(text: str) -> None:
    """Whatever its fields hold."""
    agree(text.encode())


@pytest.mark.parametrize("nested", [511, 512, 700, 1_100])
@pytest.mark.parametrize("inner", ["0", "NaN"])
def test_parse_and_model_agree_how_deep_a_message_may_be(nested: int, inner: str) -> None:
    """In fields that nobody keeps."""
    unknown = "[" * nested + inner + "]" * nested
    agree(f'{json.dumps(TIMED)[:-1]}, "unknown": {unknown}}}'.encode())


@pytest.mark.parametrize("more", [0, 1])
def test_parse_and_model_agree_how_large_a_message_may_be(more: int) -> None:
    """White space counts."""
    agree(json.dumps(TIMED).encode().ljust(LARGEST + more))


@settings(max_examples=50)
@given(request_texts() | st.sampled_from(["[]", "null", "{"]))
def test_parse_and_model_agree_on_any_merge_command(text: str) -> None:
    """But for repeats among the sources, which parse drops."""
    found, command = merged(text.encode()), modelled(MergeCommand, text.encode())
    if isinstance(found, Rejected):
        assert command is None, found
        return
    assert command is not None, found
    assert (found.org_unit, found.kind) == (command.org_unit, command.kind)
    assert found.target_lead_id == command.target_lead_id
    assert found.requested_by == command.requested_by
    assert found.source_lead_ids == tuple(dict.fromkeys(command.source_lead_ids))
