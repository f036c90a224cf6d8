"""Fakes of `processor.ports`: exact, unbounded, in memory, and never SQL.

A `Database` is what Postgres would hold, shared by the fakes of one world.  Each method of a fake is one atomic step;
a test that wants something to happen in between wraps it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from processor.ports import (
    Answer,
    EventKey,
    Fact,
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
    Seen,
    VelocityFilter,
)
from tests.fakes_rules import NO_RULES, Document, changed

NEVER = -(1 << 60)

WindowKey: TypeAlias = tuple[str, str, int, int]
"""Org unit, surviving lead, epoch, filter revision."""
Exceeding: TypeAlias = dict[str, tuple[int, str]]
"""Event id -> (time, burst id)."""


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

    def members(self, window: WindowKey, event_type: str) -> list[Row]:
        """The counted rows of a window's class, in processing order."""
        unit, lead_id, *_ = window
        leads = [
            lead_id,
            *(lead for (org, lead), to in self.redirects.items() if (org, to) == (unit, lead_id)),
        ]
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


class Window:
    """The members above a floor, and those of them that exceeded."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.members: dict[str, int] = {}
        self.exceeding: Exceeding = {}

    def add(self, event_id: str, at: int, burst: str | None) -> None:
        """A fact: harmless however often."""
        self.members[event_id] = at
        if burst is not None:
            self.exceeding[event_id] = at, burst

    def count(self, until: int, width: int, most: int) -> int:
        """Members in (until − width, until], exact up to `most`."""
        return min(most, sum(until - width < at <= until for at in self.members.values()))

    def burst_near(self, event_id: str, at: int, width: int) -> str | None:
        """The burst of another exceeding event less than a window away."""
        near = (b for i, (t, b) in self.exceeding.items() if i != event_id and abs(t - at) < width)
        return next(near, None)


class FakeWindows:
    """Windows kept exactly while they are held; what is lost is built again, what is too late is asked of the rows.

    `lose` is asked before each step whether everything held is lost now.
    """

    def __init__(
        self,
        database: Database,
        lateness_ms: int = 1 << 50,
        lose: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._lateness_ms = lateness_ms
        self._lose = lose
        self._held: dict[WindowKey, Window] = {}
        self._rows: dict[WindowKey, Window] = {}
        """What the rows tell, while one call reads."""
        self._newest: int | None = None
        """The newest event time stored when the cache was born."""

    def flush(self) -> None:
        """Loses everything held."""
        self._held, self._newest = {}, None

    async def read(self, cases: Sequence[Case]) -> list[list[Seen]]:
        """For each case an answer for each filter it watches."""
        if self._lose():
            self.flush()
        self._rows.clear()
        return [[self._seen(case, velocity) for velocity in case.watching] for case in cases]

    async def write(self, facts: Sequence[Fact]) -> None:
        """Adds facts; windows that are gone are opened as `read` does."""
        if self._lose():
            self.flush()
        touched: dict[WindowKey, tuple[Window, VelocityFilter]] = {}
        for fact in facts:
            event = fact.case.event
            for velocity in fact.case.watching:
                window = self._to_write(fact.case, velocity)
                window.add(event.id, event.occurred_at, fact.facts.exceeded.get(velocity.revision))
                touched[_key(fact.case, velocity)] = window, velocity
        for window, velocity in touched.values():
            self._bound(window, velocity)

    def _seen(self, case: Case, velocity: VelocityFilter) -> Seen:
        event, width, most = case.event, velocity.window_ms, velocity.threshold + 1
        held = self._window(case, velocity)
        late = event.occurred_at - width < held.floor
        asked = self._stored(_key(case, velocity), velocity) if late else held
        burst = (
            asked.burst_near(event.id, event.occurred_at, width) if velocity.keep_first else None
        )
        return Seen(
            count=asked.count(event.occurred_at, width, most),
            cached=event.id in held.members,
            from_store=late,
            stored=(event.org_unit, event.id) in self._database.rows,
            burst_id=burst,
        )

    def _stored(self, key: WindowKey, velocity: VelocityFilter) -> Window:
        if key not in self._rows:
            self._rows[key] = self._whole(key, velocity)
        return self._rows[key]

    def _window(self, case: Case, velocity: VelocityFilter) -> Window:
        key = _key(case, velocity)
        window = self._held.get(key)
        if window is None:
            window = self._held[key] = self._opened(key, case.event.occurred_at, velocity)
        return window

    def _to_write(self, case: Case, velocity: VelocityFilter) -> Window:
        return self._window(case, velocity)

    def _opened(self, key: WindowKey, at: int, velocity: VelocityFilter) -> Window:
        trust = self._trusted(velocity)
        if key[2] == 0 and at - velocity.window_ms > trust:
            return Window(trust)
        window = self._whole(key, velocity)
        window.floor = NEVER
        self._bound(window, velocity, at)
        return window

    def _trusted(self, velocity: VelocityFilter) -> int:
        """An absent window is empty past this."""
        if self._newest is None:
            self._newest = NEVER if self._database.newest is None else self._database.newest
        return max(self._newest, NEVER if velocity.newest is None else velocity.newest)

    def _bound(self, window: Window, velocity: VelocityFilter, at: int = NEVER) -> None:
        newest = max([at, *window.members.values()])
        window.floor = max(window.floor, newest - velocity.window_ms - self._lateness_ms)
        window.members = {i: t for i, t in window.members.items() if t > window.floor}
        window.exceeding = {i: x for i, x in window.exceeding.items() if x[0] > window.floor}

    def _whole(self, key: WindowKey, velocity: VelocityFilter) -> Window:
        """The window as the rows tell: their own facts, and the fold where they are older than the filter."""
        window = Window(NEVER)
        for row in self._database.members(key, velocity.event_type):
            event, facts = row.event, row.ruling.facts
            burst = facts.exceeded.get(velocity.revision)
            if facts.rules < velocity.revision and velocity.keep_first:
                burst = _folded(window, event, velocity)
            window.add(event.id, event.occurred_at, burst)
        return window


def _folded(window: Window, event: Event, velocity: VelocityFilter) -> str | None:
    """The burst of an event had the filter always been there; None where it does not exceed."""
    at, width, threshold = event.occurred_at, velocity.window_ms, velocity.threshold
    if window.count(at, width, threshold) + 1 <= threshold:
        return None
    return window.burst_near(event.id, at, width) or event.id


def _key(case: Case, velocity: VelocityFilter) -> WindowKey:
    return case.event.org_unit, case.root.lead_id, case.root.epoch, velocity.revision


def _stored(old: Row, row: Row) -> Stored:
    ruling = old.ruling
    same = old.place == row.place
    return Stored(old.received_at, ruling.reason, ruling.suppressed_by, same, old.deleted)


def _did(row: Row) -> tuple[bool, dict[int, str]]:
    facts: Facts = row.ruling.facts
    return facts.counted, dict(facts.exceeded)
