"""I5: what merges make of leads, now and at every time before, and what each of them has to tell.

Merges stand on one partition, so their order is known; that of merges and events is not.
"""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.evidence import Evidence, Published, Row
from tests.faults.history import Asked, History, Merge, Place, Sent
from tests.oracle_leads import Forest

MERGE_EVENTS = ("Lead Merged", "Lead Unmerged")
COMMITTED_MS = 5_000
"""A row is there for others so long after it was received, at the latest."""


class Effect(NamedTuple):
    """A merge that did something when its turn came."""

    sent: Sent
    asks: Merge
    survivor: str
    """The root of its target, before and after."""
    named: Sequence[str]
    """The sources for which there was something to do."""
    moved: frozenset[str]
    """Every lead that has another root since."""

    @property
    def title(self) -> str:
        """The type of its event."""
        return MERGE_EVENTS[self.asks.kind == "unmerge"]


@dataclass
class Leads:
    """Who is who, as the merges of a history say."""

    forest: Forest = field(default_factory=Forest)
    roots: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The survivors that a lead had at some time, beside itself."""
    effects: dict[Place, Effect] = field(default_factory=dict)
    named: dict[Place, str] = field(default_factory=dict)
    """The lead that a message is about."""

    def root(self, org_unit: str, lead: str) -> str:
        """The survivor in the end."""
        return self.forest.root(org_unit, lead)

    def raw(self, row: Row) -> str:
        """The lead that the message of a row named, or the survivor that a merge had."""
        return self.named.get(row.place, row.raw_lead)


def leads_of(history: History) -> Leads:
    """Every merge takes effect, one after the other."""
    leads = Leads()
    leads.named = {s.place: s.asks.lead_id for s in history.sent if isinstance(s.asks, Asked)}
    known: dict[str, set[str]] = defaultdict(set)
    for sent, asks in history.merging():
        known[asks.org_unit] |= {asks.target, *asks.sources}
        _merge(leads, sent, asks, known[asks.org_unit])
    return leads


def _merge(leads: Leads, sent: Sent, asks: Merge, known: set[str]) -> None:
    before = {lead: leads.root(asks.org_unit, lead) for lead in known}
    named = take_effect(leads.forest, asks)
    if not named:
        return
    after = {lead: leads.root(asks.org_unit, lead) for lead in known}
    for lead, root in after.items():
        leads.roots[asks.org_unit, lead].add(root)
    moved = frozenset(lead for lead in known if before[lead] != after[lead])
    survivor = before[asks.target]
    leads.effects[sent.place] = Effect(sent, asks, survivor, named, moved)
    leads.named[sent.place] = survivor


def take_effect(forest: Forest, merge: Merge) -> list[str]:
    """The sources for which there was something to do."""
    org_unit, target, sources, kind = merge
    if kind == "unmerge":
        return forest.part(org_unit, target, sources)
    root = forest.root(org_unit, target)
    joined = [s for s in dict.fromkeys(sources) if forest.root(org_unit, s) != root]
    forest.join(org_unit, root, joined)
    return joined


def misplaced(leads: Leads, evidence: Evidence) -> Iterator[str]:
    """Rows and messages of another lead than the merges say, and merges that are not told of as they should be."""
    for row in evidence.rows:
        raw = leads.raw(row)
        root = leads.root(row.org_unit, raw)
        expected = root, raw if raw != root else None
        if (row.lead_id, row.original_lead_id) != expected:
            yield f"{row.key} is {row.lead_id, row.original_lead_id}, should be {expected}"
    yield from _misnamed(leads, evidence)
    yield from _untold(leads, evidence)


def _misnamed(leads: Leads, evidence: Evidence) -> Iterator[str]:
    """A message names a survivor that its lead had at some time, and who was named where that is another."""
    rows = {row.key: row for row in evidence.rows}
    for message in evidence.published:
        row = rows.get(message.key)
        if row is not None and not _named_rightly(leads, leads.raw(row), message):
            said = message.lead_id, message.original_lead_id
            yield f"{message.key} is published for {said}, and named {leads.raw(row)}"


def _named_rightly(leads: Leads, raw: str, message: Published) -> bool:
    roots = {raw, *leads.roots.get((message.org_unit, raw), ())}
    original = raw if message.lead_id != raw else None
    return message.lead_id in roots and message.original_lead_id == original


def _untold(leads: Leads, evidence: Evidence) -> Iterator[str]:
    """Each merge that did something has one row, which says what it did."""
    told: dict[Place, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        told[row.place].append(row)
    past = _past(leads, evidence)
    for place, effect in leads.effects.items():
        if effect.sent.offset >= evidence.committed.get(place[:2], 0):
            continue
        found = told[place]
        if len(found) != 1:
            yield f"{place} ({effect.asks}) did something and has {len(found)} rows"
        for row in found:
            turn = min(row.batch, evidence.turns.get(row.key, 0))
            parts = [past.of(row.org_unit, lead, turn) for lead in effect.moved]
            yield from (f"{place} ({effect.asks}) {text}" for text in _wrong(row, effect, parts))


class _Part(NamedTuple):
    """The rows of a lead when a merge takes its turn."""

    before: int
    """How many are there."""
    after: Sequence[Row]
    """Those that are stored later."""


@dataclass(frozen=True)
class _Past:
    """All rows in the order in which they were stored, by who was named."""

    rows: Mapping[tuple[str, str], Sequence[Row]]
    filled: Mapping[tuple[str, str], int]

    def of(self, org_unit: str, lead: str, turn: int) -> _Part:
        """Merges are numbered like batches, under the locks of their leads."""
        rows = self.rows.get((org_unit, lead), ())
        place = bisect_left(rows, turn, key=lambda row: row.batch)
        return _Part(place + self.filled.get((org_unit, lead), 0), rows[place:])


def _past(leads: Leads, evidence: Evidence) -> _Past:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(evidence.rows, key=lambda row: row.batch):
        found[row.org_unit, leads.raw(row)].append(row)
    return _Past(found, evidence.filled)


def _wrong(row: Row, effect: Effect, parts: Sequence[_Part]) -> Iterator[str]:
    wanted = {
        "source_lead_ids": list(effect.named),
        "events_moved": sum(part.before for part in parts),
        "requested_by": None,
        "title": effect.title,
        "at": effect.sent.timestamp,
    }
    said = {**json.loads(row.metadata), "title": row.event_type, "at": row.at}
    if said != wanted and not row.deleted:
        yield f"is told of as {said}, should be {wanted}"
    long_ago = effect.sent.timestamp - COMMITTED_MS
    late = [later.key for part in parts for later in part.after if later.received_at < long_ago]
    if late:
        yield f"takes its turn before {late[:3]}, which were there when it was sent"
