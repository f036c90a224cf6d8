"""What the live stream sends for a record."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from processor.pure import frames
from processor.pure.frames import ENGAGEMENT, ENRICHED, Frame, Read, Wanted
from processor.pure.position import Position, Sent, Topic, decode

EVENT: Mapping[str, Any] = {
    "id": "evt-1",
    "lead_id": "L",
    "event_type": "Page View",
    "suppression_reason": None,
    "created_at": "2025-01-15T10:30:00.000Z",
    "metadata": {},
}
MERGE: Mapping[str, Any] = {
    **EVENT,
    "event_type": "Lead Merged",
    "metadata": {"source_lead_ids": ["B"], "events_moved": 2, "requested_by": None},
}
BEFORE = Position((Topic(b"one---", (7, 3)), Topic(b"other-", (5,))))
HEADERS = (("event-id", b"evt-1"), ("org-unit", "größe".encode()))


def read(value: object, topic: int = ENRICHED) -> Read:
    """The next record of the first partition."""
    text = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Read((topic, 0), 7 if topic == ENRICHED else 5, HEADERS, text)


def parts(frame: Frame) -> dict[str, str]:
    """Its lines by their names."""
    text = frame.text.decode()
    assert text.endswith("\n\n")
    return dict(line.split(": ", 1) for line in text[:-2].split("\n"))


def test_an_event_has_the_position_after_it_as_its_id_and_its_value_as_data() -> None:
    after, (frame,) = frames.render(BEFORE, read(EVENT))
    assert after == Position((Topic(b"one---", (8, 3)), Topic(b"other-", (5,))))
    said = parts(frame)
    assert decode(said["id"]) == after
    assert (said["event"], said["data"]) == ("new_event", json.dumps(EVENT))


def test_of_a_record_with_two_events_the_first_is_half_of_it() -> None:
    after, sent = frames.render(BEFORE, read(MERGE))
    assert [parts(frame)["event"] for frame in sent] == ["new_event", "lead_merged"]
    half, whole = (decode(parts(frame)["id"]) for frame in sent)
    assert half == Position(BEFORE.topics, Sent((ENRICHED, 0), 1))
    assert whole == after
    assert frames.render(half, read(MERGE)) == (after, sent[1:])


def test_what_was_half_sent_is_a_record_not_a_partition() -> None:
    """The one after it is sent whole."""
    half = Position(BEFORE.topics, Sent((ENRICHED, 0), 1))
    later = Read((ENRICHED, 0), 9, HEADERS, json.dumps(EVENT).encode())
    assert len(frames.render(half, later)[1]) == 1


@pytest.mark.parametrize(
    "metadata", [{}, {"source_lead_ids": "B", "events_moved": 1, "requested_by": None}, []]
)
def test_an_event_of_the_same_name_without_a_merge_is_an_event_only(metadata: object) -> None:
    """Producers may name theirs as they like."""
    _, sent = frames.render(BEFORE, read({**MERGE, "metadata": metadata}))
    assert [parts(frame)["event"] for frame in sent] == ["new_event"]


def test_line_breaks_do_not_end_the_data() -> None:
    text = json.dumps({**EVENT, "metadata": {"text": "a\nb\rc"}}, indent=2).replace("\n", "\r\n")
    _, (frame,) = frames.render(BEFORE, read(text.encode()))
    assert json.loads(parts(frame)["data"])["metadata"] == {"text": "a\nb\rc"}


@pytest.mark.parametrize("value", [None, b"", b"{", b"{}", b"[]", b'{"id": 1}', b"\xff\xfe"])
def test_a_record_that_is_none_of_ours_is_passed(value: bytes | None) -> None:
    for topic in (ENRICHED, ENGAGEMENT):
        after, sent = frames.render(BEFORE, read(value, topic))
        assert (len(sent), after.next((topic, 0))) == (0, read(value, topic).offset + 1)


def test_the_org_unit_is_in_the_header_of_an_event_and_in_the_value_of_a_finding() -> None:
    finding = {"type": "surge", "org_unit": "acme", "lead_id": "L", "score": 1}
    assert frames.org_unit_of(read(b"not looked at")) == "größe"
    assert frames.org_unit_of(read(finding, ENGAGEMENT)) == "acme"
    assert frames.org_unit_of(read({**finding, "type": "else"}, ENGAGEMENT)) is None
    for headers in ((), (("org-unit", b"\xff"),)):
        assert frames.org_unit_of(Read((ENRICHED, 0), 7, headers, b"{}")) is None


def test_reasons_and_types_choose_among_enriched_events_alone() -> None:
    event = Frame(b"", "none", "Page View")
    assert Wanted().takes(event)
    assert not Wanted(frozenset({"inorganic"})).takes(event)
    assert not Wanted(event_types=frozenset({"Form Submit"})).takes(event)
    assert Wanted(frozenset({"none"}), frozenset({"Page View"})).takes(event)
    assert Wanted(frozenset(), frozenset({"Form Submit"})).takes(Frame(b""))


def test_signs_of_life_say_where_a_client_stands() -> None:
    said = frames.hello(BEFORE, 2_000).decode().split("\n")
    assert (said[:2], said[3:]) == ([": connected", "retry: 2000"], ["", ""])
    assert decode(said[2].removeprefix("id: ")) == BEFORE
    assert frames.hello(None, 1) == b": connected\nretry: 1\n\n"
    assert frames.keep_alive(BEFORE) == b": keep-alive\n" + frames.id_line(BEFORE) + b"\n"


def test_a_reset_says_why_and_goes_on_from_its_id() -> None:
    said = parts(frames.reset("expired", BEFORE))
    assert (said["event"], decode(said["id"])) == ("reset", BEFORE)
    assert json.loads(said["data"])["reason"] == "expired"
