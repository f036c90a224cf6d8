"""The invariants, each a sentence about history and evidence.  No violation means: nothing was lost, nothing twice, one verdict for ever.

I1  every input offset below the commit has a row that holds what was sent, or a dead letter (a duplicate: the row of its original)
I2  one row per org unit and id, of events that were sent: of the first that its partition has with that id
I3  what is published of an id is its row, and its verdict is what the rows before it make it
I4  a read_committed reader sees every event exactly once (at_least_once: at least once), and every bad message's letter
I5  a row's lead is the root of the lead it named, as the merges say, and its original is that lead where the two differ; a
    message's is such a root at some time; each merge that did something is told of by one row, with what it did
I6  what Redis holds complete counts what Postgres counts, and it holds something
I7  all that was sent is committed within 60 s of the heal
I8  deleted events stay deleted
I9  the memory of workers and the size of windows are bounded
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.faults.checker_leads import Leads, leads_of, misplaced
from tests.faults.checker_messages import not_once, unlike_rows
from tests.faults.checker_windows import miscounted, too_large
from tests.faults.evidence import Evidence, Row
from tests.faults.history import Asked, History, Place
from tests.faults.promise import Promise
from tests.oracle_compare import same_json


class Violation(NamedTuple):
    """One sentence about what is not as it must be."""

    invariant: str
    text: str


def check(history: History, evidence: Evidence, promise: Promise) -> list[Violation]:
    """Every violation there is, by invariant."""
    leads = leads_of(history)
    checks = {
        "I1": _nothing_lost(history, evidence),
        "I2": _one_row_each(history, leads, evidence),
        "I3": unlike_rows(history, evidence),
        "I4": not_once(history, evidence, promise),
        "I5": misplaced(leads, evidence),
        "I6": miscounted(leads, evidence),
        "I7": _progress(history, evidence, promise),
        "I8": _tombstones(history, evidence),
        "I9": _bounded(evidence, promise),
    }
    return [Violation(name, text) for name, texts in checks.items() for text in texts]


def _nothing_lost(history: History, evidence: Evidence) -> Iterator[str]:
    places = {row.place: row for row in evidence.rows}
    keys = {row.key for row in evidence.rows}
    letters = set(evidence.letters)
    for sent in history.sent:
        row = places.get(sent.place)
        if row is not None and isinstance(sent.asks, Asked):
            yield from (f"{row.key} is stored with {text}" for text in _unlike(row, sent.asks))
        if sent.offset >= evidence.committed.get((sent.topic, sent.partition), 0):
            continue
        if sent.asks is None and sent.place not in letters:
            yield f"{sent.place} is bad and has no dead letter"
        answered = row is not None or sent.place in letters
        if isinstance(sent.asks, Asked) and not answered and sent.asks[:2] not in keys:
            yield f"{sent.place} ({sent.asks}) has no row"


def _unlike(row: Row, asked: Asked) -> Iterator[str]:
    """What a row says that its message does not; its lead is another invariant's."""
    wanted = {"org_unit": asked.org_unit, "event_type": asked.event_type, "at": asked.at}
    wanted |= {} if asked.id is None else {"id": asked.id}
    said = row._asdict()
    for name, value in wanted.items():
        if said[name] != value:
            yield f"{name} {said[name]!r}, should be {value!r}"
    if not row.deleted and not same_json(json.loads(asked.metadata), json.loads(row.metadata)):
        yield f"metadata {row.metadata}, should be {asked.metadata}"


def _one_row_each(history: History, leads: Leads, evidence: Evidence) -> Iterator[str]:
    rows = Counter(row.key for row in evidence.rows)
    yield from (f"{key} has {n} rows" for key, n in rows.items() if n > 1)
    asked = _first(history)
    nameless = {s.place for s in history.sent if isinstance(s.asks, Asked) and s.asks.id is None}
    for row in evidence.rows:
        if row.place in nameless or row.place in leads.effects:
            continue
        if row.key not in asked:
            yield f"{row.key} is stored, but nobody sent it"
        elif row.place not in asked[row.key]:
            yield f"{row.key} is stored for {row.place}, and its first message is {asked[row.key]}"


def _first(history: History) -> dict[tuple[str, str], set[Place]]:
    """Where an event stands that has an id, in each partition before its duplicates."""
    offsets: dict[tuple[str, str], dict[tuple[str, int], int]] = defaultdict(dict)
    for sent in history.sent:
        if isinstance(sent.asks, Asked) and sent.asks.id is not None:
            lanes, lane = offsets[sent.asks.org_unit, sent.asks.id], (sent.topic, sent.partition)
            lanes[lane] = min(sent.offset, lanes.get(lane, sent.offset))
    return {
        key: {(*lane, offset) for lane, offset in lanes.items()} for key, lanes in offsets.items()
    }


def _progress(history: History, evidence: Evidence, promise: Promise) -> Iterator[str]:
    for lane, end in history.ends().items():
        if evidence.committed.get(lane, 0) < end:
            yield f"{lane} is committed up to {evidence.committed.get(lane)}, sent up to {end}"
    if evidence.recovery_s > promise.recovery_s:
        yield f"{evidence.recovery_s:.0f} s from the heal to the last commit"


def _tombstones(history: History, evidence: Evidence) -> Iterator[str]:
    rows = {row.key: row for row in evidence.rows}
    for key in history.deleted:
        if key not in rows or not rows[key].deleted or rows[key].metadata != "{}":
            yield f"{key} was deleted, and is {rows.get(key)}"


def _bounded(evidence: Evidence, promise: Promise) -> Iterator[str]:
    if evidence.most_rss_mb > promise.rss_mb:
        yield f"a worker took {evidence.most_rss_mb:.0f} MB"
    yield from too_large(evidence, promise)
