"""The invariants, each a sentence about history and evidence.  No violation means: nothing was lost, nothing twice, one verdict for ever.

I1  every input offset below the commit has a row or a dead letter (a duplicate: the row of its original)
I2  one row per org unit and id, of events that were sent
I3  what is published of an id is its row's verdict, and that is what the rows before it make it
I4  a read_committed reader sees every event exactly once (at_least_once: at least once), and every bad message's letter
I5  a row's lead is the root of the lead it named, as the merges say, and its original is that lead where the two differ
I6  what Redis holds complete counts what Postgres counts
I7  all that was sent is committed within 60 s of the heal
I8  deleted events stay deleted
I9  the memory of workers and the size of windows are bounded
"""

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.faults.evidence import Evidence, Filter, Held, Row
from tests.faults.history import Asked, History, Merge
from tests.oracle_leads import Forest

RECOVERY_S = 60.0
MOST_RSS_MB = 300.0
LATENESS_MS = 3_600_000
MERGE_EVENTS = ("Lead Merged", "Lead Unmerged")


class Violation(NamedTuple):
    """One sentence about what is not as it must be."""

    invariant: str
    text: str


@dataclass(frozen=True)
class Promise:
    """What a run promises beyond the rest."""

    exactly_once: bool = True
    passes: int = 1
    """How often the input was processed from its start: each pass publishes the same once more."""
    unpublishable: frozenset[tuple[str, str]] = frozenset()
    """Events that are stored and too large to be published: each has a dead letter of its stage publish instead."""
    recovery_s: float = RECOVERY_S
    rss_mb: float = MOST_RSS_MB
    lateness_ms: int = LATENESS_MS


def check(history: History, evidence: Evidence, promise: Promise) -> list[Violation]:
    """Every violation there is, by invariant."""
    checks = {
        "I1": _nothing_lost(history, evidence),
        "I2": _one_row_each(history, evidence),
        "I3": _one_verdict(evidence),
        "I4": _published_once(history, evidence, promise),
        "I5": _leads(history, evidence),
        "I6": _windows(history, evidence),
        "I7": _progress(history, evidence, promise),
        "I8": _tombstones(history, evidence),
        "I9": _bounded(evidence, promise),
    }
    return [Violation(name, text) for name, texts in checks.items() for text in texts]


def _nothing_lost(history: History, evidence: Evidence) -> Iterator[str]:
    places = {row.place for row in evidence.rows}
    keys = {row.key for row in evidence.rows}
    letters = set(evidence.letters)
    for sent in history.sent:
        if sent.offset >= evidence.committed.get((sent.topic, sent.partition), 0):
            continue
        if sent.asks is None and sent.place not in letters:
            yield f"{sent.place} is bad and has no dead letter"
        answered = sent.place in places or sent.place in letters
        if isinstance(sent.asks, Asked) and not answered and sent.asks[:2] not in keys:
            yield f"{sent.place} ({sent.asks}) has no row"


def _one_row_each(history: History, evidence: Evidence) -> Iterator[str]:
    rows = Counter(row.key for row in evidence.rows)
    yield from (f"{key} has {n} rows" for key, n in rows.items() if n > 1)
    asked = {(s.asks.org_unit, s.asks.id) for s in history.sent if isinstance(s.asks, Asked)}
    nameless = {s.place for s in history.sent if isinstance(s.asks, Asked) and s.asks.id is None}
    for row in evidence.rows:
        known = row.key in asked or row.place in nameless or row.event_type in MERGE_EVENTS
        if not known:
            yield f"{row.key} is stored, but nobody sent it"


def _one_verdict(evidence: Evidence) -> Iterator[str]:
    rows = {row.key: row for row in evidence.rows}
    for message in evidence.published:
        row = rows.get(message.key)
        if row is None:
            yield f"{message.key} is published, but not stored"
            continue
        by = None if row.suppressed_by is None else json.loads(row.suppressed_by)
        said = message.suppression_reason, message.suppressed_by
        if said != (row.suppression_reason, by):
            yield f"{message.key} is published as {said}, stored as {row.suppression_reason, by}"
    yield from (f"recount: {mismatch}" for mismatch in evidence.recount)


def _published_once(history: History, evidence: Evidence, promise: Promise) -> Iterator[str]:
    seen = Counter(message.key for message in evidence.published)
    instead = {row.place: row.key for row in evidence.rows if row.key in promise.unpublishable}
    seen.update(instead[place] for place in evidence.letters if place in instead)
    for row in evidence.rows:
        times = seen[row.key]
        if times == 0 and not row.deleted:
            yield f"{row.key} is not published"
        if times > promise.passes and promise.exactly_once:
            yield f"{row.key} is published {times} times"
    letters = Counter(evidence.letters)
    if promise.exactly_once:
        yield from (
            f"{place} has {n} letters" for place, n in letters.items() if n > promise.passes
        )
    good = {sent.place for sent in history.sent if sent.asks is not None} - instead.keys()
    yield from (f"{place} is good and has a dead letter" for place in letters if place in good)


def _leads(history: History, evidence: Evidence) -> Iterator[str]:
    forest = _forest(history)
    named = {sent.place: sent.asks.lead_id for sent in history.sent if isinstance(sent.asks, Asked)}
    for row in evidence.rows:
        raw = named.get(row.place, row.raw_lead)
        root = forest.root(row.org_unit, raw)
        expected = root, raw if raw != root else None
        if (row.lead_id, row.original_lead_id) != expected:
            yield f"{row.key} is {row.lead_id, row.original_lead_id}, should be {expected}"


def _forest(history: History) -> Forest:
    forest = Forest()
    for merge in history.merges():
        take_effect(forest, merge)
    return forest


def take_effect(forest: Forest, merge: Merge) -> list[str]:
    """The sources for which there was something to do."""
    org_unit, target, sources, kind = merge
    if kind == "unmerge":
        return forest.part(org_unit, target, sources)
    root = forest.root(org_unit, target)
    joined = [s for s in dict.fromkeys(sources) if forest.root(org_unit, s) != root]
    forest.join(org_unit, root, joined)
    return joined


def _windows(history: History, evidence: Evidence) -> Iterator[str]:
    forest = _forest(history)
    filters = {(f.org_unit, f.revision): f for f in evidence.filters}
    rows: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in evidence.rows:
        if row.counted:
            rows[row.org_unit, row.lead_id, row.event_type].append(row)
    for held in evidence.windows:
        velocity = filters.get((held.org_unit, held.revision))
        epoch = evidence.epochs.get((held.org_unit, held.lead_id), 0)
        # Nobody asks for the windows of a lead that was merged away.
        read = held.epoch == epoch and forest.root(held.org_unit, held.lead_id) == held.lead_id
        if velocity is not None and read and (held.org_unit, held.lead_id) not in evidence.filled:
            stored = rows[held.org_unit, held.lead_id, velocity.event_type]
            yield from _window(held, velocity, stored)


def _window(held: Held, velocity: Filter, rows: Sequence[Row]) -> Iterator[str]:
    width, most = velocity.window_ms, velocity.threshold + 1
    times, members = sorted(row.at for row in rows), sorted(held.times)
    name = held.org_unit, held.lead_id, velocity.id
    for at in sorted({*times, *held.times}):
        if at - width < held.floor:
            continue
        stored = min(most, bisect_right(times, at) - bisect_right(times, at - width))
        cached = min(most, bisect_right(members, at) - bisect_right(members, at - width))
        if stored != cached:
            yield f"window {name} counts {cached} at {at}, Postgres {stored}"
    facts_known = all(row.rules >= velocity.revision for row in rows)
    if velocity.keep_first and facts_known:
        yield from _exceeding(held, velocity, rows)


def _exceeding(held: Held, velocity: Filter, rows: Sequence[Row]) -> Iterator[str]:
    width, revision = velocity.window_ms, str(velocity.revision)
    stored = sorted(r.at for r in rows if revision in json.loads(r.exceeded or "{}"))
    cached = sorted(held.exceeding)
    for at in stored:
        if at - width >= held.floor and not _near(cached, at, width):
            yield f"burst at {at} of {held.org_unit, held.lead_id, velocity.id} is not in Redis"
    for at in cached:
        if not _near(stored, at, width):
            yield f"burst at {at} of {held.org_unit, held.lead_id, velocity.id} is in no row"


def _near(times: Sequence[int], at: int, width: int) -> bool:
    return bisect_left(times, at + width) > bisect_right(times, at - width)


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
    filters = {(f.org_unit, f.revision): f for f in evidence.filters}
    for held in evidence.windows:
        velocity = filters.get((held.org_unit, held.revision))
        if velocity is None:
            continue
        slices = -(-promise.lateness_ms // velocity.window_ms) + 3
        if len(held.times) > 2 * (velocity.threshold + 1) * slices:
            yield f"{velocity.id} of {held.org_unit, held.lead_id} holds {len(held.times)} members"
