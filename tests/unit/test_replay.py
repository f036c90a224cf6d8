"""Dead letters that go back: the record is the one it was, and it says where it was first."""

import json

import pytest

from processor.pure.letters import UNREAD, dead_letter
from processor.pure.origin import Origin, derived_id, origin_of
from processor.pure.parse import parse
from processor.pure.replay import Choice, Inputs, Letter, read_letter, replayed
from processor.pure.types import Event, Rejected, Stage
from tests.oracle_parse import Message
from tests.unit.parse_records import BODY, HOUR, NOON, record

ROOMY = 1_000_000
INPUTS = Inputs("events.raw", "leads.merges")


def dead(message: Message, stage: Stage = "validate", most: int = ROOMY) -> Message:
    """The record that a worker writes of a bad message."""
    refusal = Rejected(message, stage, "missing_field", "lead_id is required.")
    value = dead_letter(refusal, most)
    return Message("events.dead", 1, 5, message.timestamp, message.key, value, message.headers)


def letter_of(message: Message, stage: Stage = "validate", most: int = ROOMY) -> Letter:
    """The same as a replay reads it."""
    found = read_letter(dead(message, stage, most), INPUTS)
    assert found
    return found


def back(letter: Letter, offset: int = 99) -> Message:
    """The replayed record as a worker reads it."""
    sent = replayed(letter, 8)
    assert sent.partition is not None
    return Message(
        sent.topic,
        sent.partition,
        offset,
        sent.timestamp,
        sent.key,
        sent.value,
        tuple(sent.headers),
    )


def test_a_replayed_record_is_the_one_it_was_and_names_its_first_place() -> None:
    """Key, value, headers, timestamp and partition; four headers more."""
    message = record(b"{}", headers=(("trace", b"1"),))
    sent = replayed(letter_of(message), 8)
    assert (sent.topic, sent.key, sent.value) == ("events.raw", b"lead-1", b"{}")
    assert (sent.timestamp, sent.partition) == (NOON, 3)
    assert list(sent.headers) == [
        ("trace", b"1"),
        ("original-topic", b"events.raw"),
        ("original-partition", b"3"),
        ("original-offset", b"14"),
        ("original-timestamp", b"%d" % NOON),
    ]


@pytest.mark.parametrize("timestamp", [NOON, None, -1])
def test_a_letter_that_fails_again_keeps_its_first_coordinates(timestamp: int | None) -> None:
    """However often: the four headers are replaced, never doubled, and the derived id stays."""
    message = record(b"{}", timestamp)
    first = back(letter_of(message))
    second = back(letter_of(first), 120)
    known = None if timestamp in (None, -1) else timestamp
    assert origin_of(second) == Origin("events.raw", 3, 14, known)
    assert [name for name, _ in second.headers] == [name for name, _ in first.headers]
    assert second.timestamp == first.timestamp


def test_a_replayed_event_has_the_id_and_the_time_it_would_have_had() -> None:
    """Where it names neither."""
    event = parse(back(letter_of(record(json.dumps(BODY).encode()))), HOUR)
    assert isinstance(event, Event)
    assert event.id == derived_id("events.raw", 3, 14, NOON)
    assert (event.occurred_at, event.record.offset) == (NOON, 99)


@pytest.mark.parametrize("header", [("original-offset", b"x"), ("original-topic", b"other")])
def test_headers_that_no_replay_has_set_are_no_coordinates(header: tuple[str, bytes]) -> None:
    """A producer's own: what the worker would not believe gives way to the record's place."""
    sent = back(letter_of(record(b"{}", headers=(header,))))
    assert origin_of(sent) == Origin("events.raw", 3, 14, NOON)


def test_a_null_value_goes_back_as_one() -> None:
    """It was one; it will fail again."""
    assert replayed(letter_of(record(None)), 8).value is None


def test_a_partition_that_is_no_longer_there_is_left_to_the_key() -> None:
    """The topic has fewer than it had."""
    assert replayed(letter_of(record(b"{}")), 3).partition is None


def test_a_letter_without_its_payload_cannot_go_back() -> None:
    """It says so."""
    letter = letter_of(record(b"{" + b" " * 2000 + b"}"), most=1000)
    assert letter.obstacle == "it was too large to keep its payload"
    assert str(letter).endswith("(cannot be replayed: it was too large to keep its payload)")


def test_a_letter_of_another_topic_cannot_go_back() -> None:
    """Whoever may write letters must not reach every topic."""
    found = read_letter(dead(record(b"{}")), Inputs("other", "leads.merges"))
    assert found
    assert found.obstacle == "events.raw is no input of this processor"


def test_an_event_that_did_not_fit_its_topic_cannot_go_back() -> None:
    """It is stored: the replayed message would be another one with its id, and not be published."""
    letter = letter_of(record(b"{}"), "publish")
    assert letter.obstacle.startswith("its event is stored, and again it would be a duplicate")


def test_a_merge_that_did_not_fit_the_enriched_topic_goes_back() -> None:
    """Its row is published again, whatever message brings it."""
    message = Message("leads.merges", 0, 1, NOON, b"k", b"{}")
    assert letter_of(message, "publish").obstacle == ""


def test_a_message_that_was_never_read_cannot_go_back() -> None:
    """What stands for its value is nothing that anybody sent."""
    letter = letter_of(record(UNREAD), "parse")
    assert letter.obstacle.startswith("its message was never read")


DEEP = b"[" * 2000 + b"]" * 2000


@pytest.mark.parametrize(
    "value",
    [None, b"", b"[]", b"\xff", b'{"topic": "events.raw"}', b"{}", b'{"x": %b}' % DEEP],
    ids=range(7),
)
def test_what_is_no_letter_is_none(value: bytes | None) -> None:
    """Any bytes at all."""
    assert read_letter(Message("events.dead", 0, 0, NOON, None, value), INPUTS) is None


def test_a_payload_that_is_no_base64_is_no_letter() -> None:
    """Of either kind."""
    said = json.loads(dead(record(b"{}")).value or b"")
    for text in ("é", "%%%"):
        value = json.dumps(said | {"payload_base64": text}).encode()
        assert read_letter(Message("events.dead", 0, 0, NOON, None, value), INPUTS) is None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("partition", -1),
        ("partition", 2**31),
        ("offset", -1),
        ("offset", 2**63),
        ("timestamp", -1),
        ("timestamp", 2**63),
        ("timestamp", 10**30),
    ],
)
def test_numbers_that_kafka_does_not_have_are_in_no_letter(name: str, number: int) -> None:
    """A producer could not send them."""
    said = json.loads(dead(record(b"{}")).value or b"")
    for wrong, found in ((said, True), (said | {name: number}, False)):
        value = json.dumps(wrong).encode()
        letter = read_letter(Message("events.dead", 0, 0, NOON, None, value), INPUTS)
        assert bool(letter) == found


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (Choice(), True),
        (Choice(stage="validate", error="missing_field"), True),
        (Choice(stage="parse"), False),
        (Choice(error="bad_length"), False),
        (Choice(topic="events.raw", partition=3, offset=14), True),
        (Choice(topic="leads.merges"), False),
        (Choice(partition=0), False),
        (Choice(offset=0), False),
        (Choice(org_unit="acme"), True),
        (Choice(org_unit="other"), False),
        (Choice(since=NOON, until=NOON + 1), True),
        (Choice(since=NOON + 1), False),
        (Choice(until=NOON), False),
    ],
)
def test_letters_are_chosen_by_what_they_say(choice: Choice, chosen: bool) -> None:
    """All that is asked must agree."""
    assert choice.has(letter_of(record(b'{"org_unit": "acme"}'))) == chosen


@pytest.mark.parametrize("unread", ["NaN", r'"\ud800"', "1e400", "1" + "0" * 30])
def test_the_org_unit_of_a_payload_is_what_a_worker_reads(unread: str) -> None:
    """A field that nobody keeps may hold anything."""
    message = record(f'{{"org_unit": "acme", "unread": {unread}}}'.encode())
    assert Choice(org_unit="acme").has(letter_of(message))
    assert not Choice(org_unit="other").has(letter_of(message))


def test_a_letter_without_a_time_is_in_no_range_of_time() -> None:
    """And one whose payload is no object is of no org unit."""
    letter = letter_of(record(b"[1]", None))
    assert not Choice(since=0).has(letter)
    assert not Choice(org_unit="acme").has(letter)
    assert Choice().has(letter)


def test_a_letter_is_one_line() -> None:
    """Where it is, where it was, when, and why."""
    again = letter_of(back(letter_of(record(b"{}"))))
    assert str(again) == (
        "events.dead/1/5  events.raw/3/99  2026-01-01T12:00:00.000Z  validate missing_field"
        "  lead_id is required. (failed again)"
    )
