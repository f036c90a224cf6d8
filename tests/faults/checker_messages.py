"""I3 and I4: what is published of an event says what its row says, and every reader sees it once."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from tests.faults.evidence import Evidence, Published, Row
from tests.faults.history import Asked, History
from tests.faults.promise import Promise
from tests.oracle_compare import rfc3339, same_json


def unlike_rows(history: History, evidence: Evidence) -> Iterator[str]:
    """Messages without a row, or with another verdict, time, type, metadata, key or headers; and verdicts that a recount refutes.

    The lead is left out: a later merge moves the row, and not the message.
    """
    rows = {row.key: row for row in evidence.rows}
    sent = {s.place: s.asks.metadata for s in history.sent if isinstance(s.asks, Asked)}
    for message in evidence.published:
        row = rows.get(message.key)
        if row is None:
            yield f"{message.key} is published, but not stored"
            continue
        # A row that was deleted since has forgotten what it held.
        metadata = sent.get(row.place, row.metadata)
        wrong = [*_unequal(message, row), *_other_metadata(message, metadata)]
        yield from (f"{message.key} is published with {text}" for text in wrong)
    yield from (f"recount: {mismatch}" for mismatch in evidence.recount)


def _unequal(message: Published, row: Row) -> Iterator[str]:
    wanted = {
        "suppression_reason": row.suppression_reason,
        "suppressed_by": None if row.suppressed_by is None else json.loads(row.suppressed_by),
        "event_type": row.event_type,
        "created_at": rfc3339(row.at),
        "received_at": rfc3339(row.received_at),
        "record_key": message.lead_id.encode(),
    }
    said = message._asdict()
    for name, value in wanted.items():
        if said[name] != value:
            yield f"{name} {said[name]!r}, stored with {value!r}"
    yield from _other_headers(message, row)


def _other_headers(message: Published, row: Row) -> Iterator[str]:
    headers = dict(message.headers)
    wanted = {"event-id": row.id, "org-unit": row.org_unit}
    wanted |= {"suppression-reason": row.suppression_reason} if row.suppression_reason else {}
    version = headers.pop("schema-version", b"")
    named = {name: value.encode() for name, value in wanted.items()}
    if not version or headers != named or len(message.headers) != len(wanted) + 1:
        yield f"headers {message.headers}, should be {wanted} and the schema's version"


def _other_metadata(message: Published, metadata: str) -> Iterator[str]:
    if not same_json(json.loads(metadata), message.metadata):
        yield f"metadata {message.metadata!r}, should be {metadata}"


def not_once(history: History, evidence: Evidence, promise: Promise) -> Iterator[str]:
    """Events and letters that are missing, or come more often than is promised; letters of what is good."""
    seen = Counter(message.key for message in evidence.published)
    instead = {row.place: row.key for row in evidence.rows if row.key in promise.unpublishable}
    seen.update(instead[place] for place in evidence.letters if place in instead)
    yield from _times(evidence, seen, promise)
    letters = Counter(evidence.letters)
    if promise.exactly_once:
        yield from (
            f"{place} has {n} letters" for place, n in letters.items() if n > promise.passes
        )
    good = {sent.place for sent in history.sent if sent.asks is not None} - instead.keys()
    yield from (f"{place} is good and has a dead letter" for place in letters if place in good)


def _times(
    evidence: Evidence, seen: Mapping[tuple[str, str], int], promise: Promise
) -> Iterator[str]:
    for row in evidence.rows:
        times = seen.get(row.key, 0)
        if times == 0 and not row.deleted:
            yield f"{row.key} is not published"
        if times > promise.passes and promise.exactly_once:
            yield f"{row.key} is published {times} times"
