"""Dead letters: all that is needed to see what was wrong and to send the message again."""

import ast
import base64
import hashlib
import json
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processor.outputs import Outputs
from processor.pure.letters import dead_letter
from processor.pure.types import Rejected
from schemas.messages import DeadLetter
from tests.oracle_parse import Message
from tests.unit.parse_records import NOON, record, refused

ROOMY = 1_000_000
ROOT = Path(__file__).parents[2]
CODE_OF = {"refuse": 0, "Fault": 1, "Rejected": 2}
"""Which argument of what makes a refusal is its code."""


def rejection(message: Message) -> Rejected:
    """The message, refused."""
    return Rejected(message, "validate", "missing_field", "lead_id is required.")


def test_a_dead_letter_names_the_place_the_fault_and_the_payload() -> None:
    """Its fields are those of the contract, in their order."""
    letter = dead_letter(rejection(record(b"\xff\x00{}")), ROOMY)
    expected = {
        "topic": "events.raw",
        "partition": 3,
        "offset": 14,
        "timestamp": NOON,
        "stage": "validate",
        "error": "missing_field",
        "reason": "lead_id is required.",
        "payload_base64": base64.b64encode(b"\xff\x00{}").decode(),
    }
    assert list(json.loads(letter).items()) == list(expected.items())


@pytest.mark.parametrize("timestamp", [None, -1])
def test_a_record_without_a_timestamp_has_none_in_its_letter(timestamp: int | None) -> None:
    """Kafka says -1, clients say nothing."""
    letter = dead_letter(rejection(record(b"{", timestamp)), ROOMY)
    assert json.loads(letter)["timestamp"] is None


@pytest.mark.parametrize("max_bytes", [ROOMY, 1])
def test_a_message_without_a_value_has_a_letter_without_a_payload(max_bytes: int) -> None:
    """There is nothing to hash."""
    letter = json.loads(dead_letter(refused(None), max_bytes))
    assert (letter["error"], letter["payload_base64"]) == ("no_value", None)
    assert "payload_sha256" not in letter


def test_an_empty_value_is_an_empty_payload() -> None:
    """Unlike none."""
    assert json.loads(dead_letter(refused(b""), ROOMY))["payload_base64"] == ""


def test_a_payload_that_cannot_fit_is_not_copied() -> None:
    """One out of a compressed batch may have 64 MB."""
    refusal = rejection(record(bytes(8 * ROOMY)))
    tracemalloc.start()
    try:
        letter = dead_letter(refusal, ROOMY)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert b"payload_sha256" in letter
    assert most < ROOMY


def test_a_payload_that_does_not_fit_is_named_by_its_hash() -> None:
    """Key and headers count as well, since they go with the letter."""
    payload = b"x" * 1_000
    small = record(payload)
    whole = len(dead_letter(rejection(small), ROOMY))
    room = whole + len(b"lead-1") + 256
    for message, max_bytes, fits in (
        (small, room, True),
        (small, room - 1, False),
        (small._replace(key=None), room - 6, True),
        (small._replace(headers=(("trace", b"12345"),)), room + 20, True),
        (small._replace(headers=(("trace", b"12345"),)), room + 19, False),
    ):
        letter = json.loads(dead_letter(rejection(message), max_bytes))
        assert (letter["payload_base64"] is not None) is fits
        assert letter.get("payload_sha256") == (
            None if fits else hashlib.sha256(payload).hexdigest()
        )


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"\xff", b'{"org_unit": "\\ud800"}', b'{"org_unit": 5}']
)
@pytest.mark.parametrize("max_bytes", [ROOMY, 1])
def test_every_dead_letter_is_one_of_its_schema(value: bytes | None, max_bytes: int) -> None:
    """Whatever was wrong."""
    letter = DeadLetter.model_validate_json(dead_letter(refused(value), max_bytes))
    assert (letter.topic, letter.partition, letter.offset) == ("events.raw", 3, 14)


def test_a_reason_never_repeats_what_the_message_holds() -> None:
    """Logs and metrics see it."""
    secret = "me@example.com"
    for name in ("org_unit", "lead_id", "event_type", "id", "timestamp", "metadata"):
        for held in (secret * 30, {secret: secret}, [secret], {secret: "\0"}, secret + "\0"):
            body = {"org_unit": "acme", "lead_id": "l", "event_type": "t"} | {name: held}
            if name == "metadata" and held == {secret: secret}:
                continue
            assert "example" not in refused(json.dumps(body).encode()).reason


def test_a_letter_is_as_old_as_its_publication() -> None:
    """Kafka would remove the letter of an old record at once; the value has the record's timestamp."""
    letter = Outputs("enriched", "dead", lambda _: ROOMY).letter(rejection(record(b"{", NOON)))
    assert letter.timestamp is None
    assert json.loads(letter.value or b"")["timestamp"] == NOON


@pytest.mark.parametrize(
    "kept",
    [
        {"key": b"k" * 3_000},
        {"headers": (("h", b"x" * 3_000),)},
        {"headers": (("h" * 3_000, b""),)},
    ],
)
def test_a_letter_whose_key_or_headers_do_not_fit_goes_without_them(
    kept: dict[str, Any],
) -> None:
    """No message is so bad that there is no letter for it."""
    refused = rejection(record(b"{", NOON)._replace(**kept))
    for limit, whole in ((ROOMY, True), (2_000, False)):
        letter = Outputs("enriched", "dead", {"dead": limit}.__getitem__).letter(refused)
        carried = refused.record.key, refused.record.headers
        assert (letter.key, letter.headers) == (carried if whole else (None, ()))
        assert len(letter.value or b"") < 2_000
        assert ("payload_sha256" in json.loads(letter.value or b"")) is not whole


def codes() -> Iterator[str]:
    """What the program calls the faults of messages, but for those of a request's body alone."""
    for path in (ROOT / "processor").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = CODE_OF.get(node.func.id, len(node.args))
                code = node.args[place] if place < len(node.args) else None
                if isinstance(code, ast.Constant) and path.name != "ingest.py":
                    yield str(code.value)


def test_the_readme_lists_every_code_of_a_dead_letter() -> None:
    """And none that there is not."""
    _, _, table = (ROOT / "README.md").read_text().partition("| `stage` | `error` |")
    rows = [line.split("|")[2] for line in table.partition("\n\n")[0].splitlines()[2:]]
    listed = re.findall(r"`([a-z][a-z0-9]*_[a-z0-9_]+)`", " ".join(rows))
    assert len(listed) == len({*listed})
    assert {*listed} == {*codes()}
