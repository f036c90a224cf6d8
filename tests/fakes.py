"""Fakes of `processor.ports`: exact, unbounded, in memory, and never SQL.

A `Database` is what Postgres would hold, shared by the fakes of one world.  Each method of a fake is one atomic step;
a test that wants something to happen in between wraps it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from processor.ports import (
    Answer,
    EventKey,
    KnownIds,
    LeadKey,
    Recorded,
    StaleRoots,
    StaleRules,
    Stored,
)
from processor.pure.types import (
    Case,
    Event,
    Facts,
    Root,
    Rules,
    Ruling,
    VelocityFilter,
)
from tests.fakes_rules import NO_RULES, Document, changed

NEVER = -(1 << 60)

WindowKey: TypeAlias = tuple[str, str, int, int]
"""Org unit, surviving lead, epoch, filter revision."""


class Row(Struct, frozen=True):
    """A stored event."""

    ruling: Ruling
    received_at: int
    deleted: bool = False

    @property
    def event(self) -> Event:
        """The event as it was first stored."""
        return self.ruling.case.event

    @property
    def place(self) -> tuple[str, int, int, int | None]:
        """What makes two deliveries the same message."""
        record = self.event.record
        stamped = record.timestamp is not None and record.timestamp >= 0
        return record.topic, record.partition, record.offset, record.timestamp if stamped else None

    @property
    def body(self) -> tuple[str, str, int]:
        """What a duplicate must share to leave a trace."""
        return self.event.lead_id, self.event.event_type, self.event.occurred_at


@dataclass
class Database:
    """Everything committed; rows stand in processing order."""

    rules: Rules = NO_RULES
    rows: dict[EventKey, Row] = field(default_factory=dict)
    redirects: dict[LeadKey, str] = field(default_factory=dict)
    epochs: dict[LeadKey, int] = field(default_factory=dict)
    newest: int | None = None
    commits: int = 0
    _order: dict[tuple[str, str, str], list[tuple[int, str]]] = field(default_factory=dict)
    """By org unit, type and lead named: the number of each row, and its id."""
    _with: dict[EventKey, frozenset[str]] = field(default_factory=dict)
    """Of each row who was one with its lead when it was stored."""

    def root(self, org_unit: str, lead_id: str) -> Root:
        """The surviving lead, and its epoch."""
        root = self.redirects.get((org_unit, lead_id), lead_id)
        return Root(root, self.epochs.get((org_unit, root), 0))

    def merge(self, org_unit: str, target: str, *sources: str) -> None:
        """Redirects the sources' classes to the target's root, which gets a new epoch."""
        root = self.root(org_unit, target).lead_id
        gone = {self.root(org_unit, source).lead_id for source in sources} - {root}
        for key, to in list(self.redirects.items()):
            if key[0] == org_unit and to in gone:
                self.redirects[key] = root
        self.redirects.update({(org_unit, lead): root for lead in gone})
        self.epochs[org_unit, root] = max(self.epochs.values(), default=0) + 1

    def unmerge(self, org_unit: str, target: str, *sources: str) -> None:
        """Makes roots again of sources that nothing was merged into, each with a new epoch as the target's root has."""
        root = self.root(org_unit, target).lead_id
        epoch = max(self.epochs.values(), default=0) + 1
        for source in sources:
            del self.redirects[org_unit, source]
        self.epochs.update(dict.fromkeys([(org_unit, lead) for lead in (root, *sources)], epoch))

    def one_with(self, org_unit: str, lead_id: str) -> frozenset[str]:
        """The class of a lead as it is now."""
        root = self.root(org_unit, lead_id).lead_id
        return frozenset(
            {root, *(a for (org, a), to in self.redirects.items() if (org, to) == (org_unit, root))}
        )

    def change(self, *documents: Document, org_unit: str = "acme") -> None:
        """Makes the filters of an org unit what these documents say."""
        self.rules = changed(self.rules, self.newest, org_unit, documents)

    def delete(self, key: EventKey) -> None:
        """Leaves a tombstone."""
        self.rows[key] = replace(self.rows[key], deleted=True)

    def store(self, row: Row) -> None:
        """Adds a row, unless its id has one."""
        event = row.event
        if self.rows.setdefault((event.org_unit, event.id), row) is row:
            place = event.org_unit, event.event_type, event.lead_id
            self._order.setdefault(place, []).append((len(self.rows), event.id))
            together = self.one_with(event.org_unit, event.lead_id)
            self._with[event.org_unit, event.id] = together

    def older(self, org_unit: str, velocity: VelocityFilter) -> list[tuple[Event, frozenset[str]]]:
        """The counted rows of a type that a filter is younger than, in processing order, each with who was one with its lead then."""
        return [
            (row.event, self._with[key])
            for key, row in self.rows.items()
            if key[0] == org_unit
            and row.event.event_type == velocity.event_type
            and row.ruling.facts.counted
            and row.ruling.facts.rules < velocity.revision
        ]

    def members(self, window: WindowKey, event_type: str) -> list[Row]:
        """The counted rows of a window's class, in processing order."""
        unit, lead_id, *_ = window
        leads = self.one_with(unit, lead_id)
        found = sorted(n for lead in leads for n in self._order.get((unit, event_type, lead), []))
        rows = [self.rows[unit, event_id] for _, event_id in found]
        return [row for row in rows if row.ruling.facts.counted]


class FakeRulebook:
    """The rules one worker has in hand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.rules = database.rules

    async def reload(self) -> None:
        """Takes what is in force."""
        self.rules = self._database.rules


class FakeEvents:
    """The table of events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """All or nothing, as `processor.ports` says."""
        database = self._database
        if rules != database.rules.revision:
            return StaleRules()
        if roots := self._stale(ruling.case for ruling in rulings):
            return StaleRoots(roots)
        new = [Row(ruling, database.commits + 1) for ruling in rulings]
        rows = [self._first(row) for row in new]
        if refused := self._refused(new, rows):
            return refused
        database.commits += 1
        for row in new:
            database.store(row)
        times = [row.event.occurred_at for row in new]
        database.newest = max([*times, *([] if database.newest is None else [database.newest])])
        known = {
            n: _stored(old, row) for n, (row, old) in enumerate(zip(new, rows, strict=True)) if old
        }
        return Recorded(database.commits, known)

    def _first(self, row: Row) -> Row | None:
        return self._database.rows.get((row.event.org_unit, row.event.id))

    def _stale(self, cases: Iterable[Case]) -> dict[LeadKey, Root]:
        used = {(case.event.org_unit, case.event.lead_id): case.root for case in cases}
        now = {lead: self._database.root(*lead) for lead in used}
        return {lead: root for lead, root in now.items() if root != used[lead]}

    def _refused(self, new: Sequence[Row], rows: Sequence[Row | None]) -> KnownIds | None:
        pairs = [
            ((r.event.org_unit, r.event.id), r, old)
            for r, old in zip(new, rows, strict=True)
            if old
        ]
        others = frozenset(key for key, row, old in pairs if row.body != old.body)
        facts = {
            key: old.ruling.facts
            for key, row, old in pairs
            if key not in others and _did(row) != _did(old)
        }
        return KnownIds(others, facts) if others or facts else None


def _stored(old: Row, row: Row) -> Stored:
    ruling = old.ruling
    same = old.place == row.place
    return Stored(old.received_at, ruling.reason, ruling.suppressed_by, same, old.deleted)


def _did(row: Row) -> tuple[bool, dict[int, str]]:
    facts: Facts = row.ruling.facts
    return facts.counted, dict(facts.exceeded)
