"""What was stored and published, against the oracle: each difference is a sentence; no sentence means equal.

Stored rows are mappings with the columns of ``events``; ``occurred_at`` and ``received_at`` in ms, JSON as Python values.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.oracle import Oracle, Provenance, Row
from tests.oracle_filters import Velocity
from tests.oracle_parse import Message

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MESSAGE_FIELDS = {
    *("id", "org_unit", "lead_id", "original_lead_id", "event_type", "metadata"),
    *("suppression_reason", "suppressed_by", "created_at", "received_at"),
}


@dataclass(frozen=True)
class Published:
    """A record of the enriched or the dead topic."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def row_problems(oracle: Oracle, stored: Iterable[Mapping[str, Any]]) -> list[str]:
    """Row by row, both ways."""
    found = {(row["org_unit"], row["id"]): row for row in stored}
    problems = [f"{key}: not stored" for key in oracle.rows.keys() - found.keys()]
    problems += [f"{key}: stored, but should not be" for key in found.keys() - oracle.rows.keys()]
    for key in oracle.rows.keys() & found.keys():
        row = oracle.rows[key]
        expected = {
            "lead_id": oracle.root(row),
            "original_lead_id": oracle.original(row),
            "event_type": row.raw.event_type,
            "occurred_at": row.raw.at,
            "source_partition": row.message.partition,
            "source_offset": row.message.offset,
        }
        wrong = [*_unequal(expected, found[key]), *_verdict_problems(row, found[key])]
        problems += [f"{key}: {text}" for text in wrong]
    return sorted(problems)


def message_problems(
    oracle: Oracle,
    published: Iterable[Published],
    received: Mapping[tuple[str, str], int],
) -> list[str]:
    """Message by message: one for each row, as it was when published; ``received`` are the rows' ``received_at``, ms."""
    problems: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    for message in published:
        value = json.loads(message.value or b"null")
        key = value["org_unit"], value["id"]
        seen[key] += 1
        if key not in oracle.rows:
            problems.append(f"{key}: published, but should not be")
            continue
        wrong = _message_problems(oracle.rows[key], message, value, received.get(key))
        problems += [f"{key}: message: {text}" for text in wrong]
    problems += [f"{key}: published {seen[key]} times" for key in oracle.rows if seen[key] != 1]
    return sorted(problems)


def dead_problems(oracle: Oracle, letters: Iterable[Published]) -> list[str]:
    """Exactly one dead letter for each bad message, with its place, stage, payload, key and headers."""
    expected = {d.message.place[:3]: d for d in oracle.dead}
    seen: Counter[tuple[str, int, int]] = Counter()
    problems: list[str] = []
    for letter in letters:
        value = json.loads(letter.value or b"null")
        place = value["topic"], value["partition"], value["offset"]
        seen[place] += 1
        if place not in expected:
            problems.append(f"{place}: dead ({value['error']}: {value['reason']}), should not be")
            continue
        if value["stage"] not in expected[place].stages:
            problems.append(f"{place}: stage {value['stage']}, {expected[place].why}")
        wrong = _letter_problems(expected[place].message, letter, value)
        problems += [f"{place}: {text}" for text in wrong]
    problems += [
        f"{place}: {seen[place]} dead letters ({dead.why})"
        for place, dead in expected.items()
        if seen[place] != 1
    ]
    return sorted(problems)


def rfc3339(at: int) -> str:
    """``at`` ms as the enriched event writes it."""
    moment = EPOCH + timedelta(milliseconds=at)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def same_json(a: Any, b: Any) -> bool:
    """Equal, with true unlike 1; a number may be written as an integer or as a decimal."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        exact = isinstance(a, int) and isinstance(b, int)
        return a == b if exact else float(a) == float(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_json(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_json, a, b))
    return type(a) is type(b) and bool(a == b)


def _unequal(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in expected.items():
        if found.get(name) != value or name not in found:
            yield f"{name} is {found.get(name)!r}, should be {value!r}"


def _verdict_problems(row: Row, found: Mapping[str, Any]) -> Iterator[str]:
    yield from _unequal({"suppression_reason": row.reason}, found)
    yield from provenance_problems(row.by, found["suppressed_by"])
    if not same_json(row.raw.metadata, found["metadata"]):
        yield f"metadata is {found['metadata']!r}, should be {row.raw.metadata!r}"


def provenance_problems(by: Provenance | None, found: Any) -> Iterator[str]:
    """``count`` may be anything from N + 1 to the exact count, ``burst_id`` any the event may join."""
    if by is None or not isinstance(found, dict):
        if by is not None or found is not None:
            yield f"suppressed_by is {found!r}, should be of {by and by.filter.id}"
        return
    opinion, said = by.opinion, dict(found)
    expected: dict[str, Any] = {
        "filter_id": by.filter.id,
        "filter_version": by.filter.version,
        "filter_name": by.filter.name,
    }
    if opinion is not None and isinstance(by.filter, Velocity):
        expected |= {"threshold": by.filter.threshold, "window_ms": by.filter.window_ms}
        count = said.pop("count", None)
        if type(count) is not int or not by.filter.threshold < count <= opinion.count:
            yield f"count is {count!r}, should be {by.filter.threshold + 1} to {opinion.count}"
        if by.filter.keep_first and said.pop("burst_id", None) not in opinion.inherited:
            yield f"burst_id is {found.get('burst_id')!r}, one of {sorted(opinion.inherited)}"
    if said != expected:
        yield f"suppressed_by is {found!r}, should be {expected!r}"


def _message_problems(
    row: Row, message: Published, value: dict[str, Any], received: int | None
) -> Iterator[str]:
    raw = row.raw
    if not value.keys() >= MESSAGE_FIELDS:
        yield f"lacks {sorted(MESSAGE_FIELDS - value.keys())}"
    expected: dict[str, Any] = {
        "lead_id": row.lead_id,
        "original_lead_id": raw.lead_id if raw.lead_id != row.lead_id else None,
        "event_type": raw.event_type,
        "created_at": rfc3339(raw.at),
        "received_at": None if received is None else rfc3339(received),
    }
    yield from _unequal(expected, value)
    yield from _verdict_problems(row, value)
    if message.key != row.lead_id.encode():
        yield f"key is {message.key!r}"
    headers = dict(message.headers)
    wanted = {"event-id": raw.id, "org-unit": raw.org_unit}
    wanted |= {"suppression-reason": row.reason} if row.reason else {}
    version = headers.pop("schema-version", b"")
    if not version or headers != {k: v.encode() for k, v in wanted.items()}:
        yield f"headers are {message.headers!r}"


def _letter_problems(bad: Message, letter: Published, value: dict[str, Any]) -> Iterator[str]:
    payload = value["payload_base64"]
    if (None if payload is None else base64.b64decode(payload)) != bad.value:
        yield "another payload"
    if value["timestamp"] != bad.timestamp:
        yield f"timestamp is {value['timestamp']!r}, should be {bad.timestamp!r}"
    if letter.key != bad.key:
        yield f"key is {letter.key!r}, should be {bad.key!r}"
    if not set(bad.headers) <= set(letter.headers):
        yield f"headers are {letter.headers!r}, lack some of {bad.headers!r}"
    if not value["reason"] or not value["error"].replace("_", "").isalnum():
        yield f"no error or reason: {value['error']!r}, {value['reason']!r}"
