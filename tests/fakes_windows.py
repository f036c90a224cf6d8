"""A fake of `processor.ports.Windows`: exact and in memory, over the fake database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from processor.ports import Reading
from processor.pure.types import Case, Event, Facts, Seen, VelocityFilter
from tests.fakes import NEVER, Database, WindowKey

Exceeding: TypeAlias = dict[str, tuple[int, str]]
"""Event id -> (time, burst id)."""
_CALM = Seen(0, cached=False, from_store=False, stored=False, burst_id=None, calm=True)


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
        self._bursts: dict[tuple[str, int], Mapping[str, str]] = {}
        """By org unit and filter revision the bursts of the rows that are older, which are no more ever."""
        self._newest: int | None = None
        """The newest event time stored when the cache was born."""

    def flush(self) -> None:
        """Loses everything held."""
        self._held, self._newest = {}, None

    async def read(self, cases: Sequence[Case]) -> Reading:
        """For each case an answer for each filter it watches."""
        if self._lose():
            self.flush()
        self._rows.clear()
        calm = self._calm(cases)
        seen = [
            [_CALM if _key(case, v) in calm else self._seen(case, v) for v in case.watching]
            for case in cases
        ]
        return Reading(cases, seen)

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """Adds facts; windows that are gone are opened as `read` does."""
        if self._lose():
            self.flush()
        touched: dict[WindowKey, tuple[Window, VelocityFilter]] = {}
        for case, told in zip(reading.cases, facts, strict=True):
            event = case.event
            for velocity in case.watching:
                window = self._to_write(case, velocity)
                window.add(event.id, event.occurred_at, told.exceeded.get(velocity.revision))
                touched[_key(case, velocity)] = window, velocity
        for window, velocity in touched.values():
            self._bound(window, velocity)

    def _calm(self, cases: Sequence[Case]) -> set[WindowKey]:
        """Windows in which no event of the batch can exceed, and none is late."""
        touched: dict[WindowKey, tuple[VelocityFilter, Window, list[int]]] = {}
        for case in cases:
            for velocity in case.watching:
                new = velocity, self._window(case, velocity), list[int]()
                times = touched.setdefault(_key(case, velocity), new)[2]
                times.append(case.event.occurred_at)
        return {
            key
            for key, (velocity, window, times) in touched.items()
            if min(times) - velocity.window_ms >= window.floor
            and len(window.members) + len(times) <= velocity.threshold
        }

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
        older = self._older(key[0], velocity) if velocity.keep_first else {}
        for row in self._database.members(key, velocity.event_type):
            event, facts = row.event, row.ruling.facts
            burst = facts.exceeded.get(velocity.revision) or older.get(event.id)
            window.add(event.id, event.occurred_at, burst)
        return window

    def _older(self, org_unit: str, velocity: VelocityFilter) -> Mapping[str, str]:
        """The bursts of rows that the filter is younger than, had it always been there; of those that exceed."""
        key = org_unit, velocity.revision
        if key not in self._bursts:
            self._bursts[key] = folded(self._database.older(org_unit, velocity), velocity)
        return self._bursts[key]


def folded(
    older: Iterable[tuple[Event, frozenset[str]]], velocity: VelocityFilter
) -> Mapping[str, str]:
    """The bursts of those that exceed, each event judged among those of the leads that were one with its own when it was stored."""
    bursts: dict[str, str] = {}
    own: dict[str, Window] = {}
    for event, together in older:
        windows = [own[lead] for lead in together if lead in own]
        burst = _judged(windows, event, velocity)
        own.setdefault(event.lead_id, Window(NEVER)).add(event.id, event.occurred_at, burst)
        if burst is not None:
            bursts[event.id] = burst
    return bursts


def _judged(windows: Sequence[Window], event: Event, velocity: VelocityFilter) -> str | None:
    """The burst of an event among those of these windows; None where it does not exceed."""
    at, width, threshold = event.occurred_at, velocity.window_ms, velocity.threshold
    if sum(window.count(at, width, threshold) for window in windows) + 1 <= threshold:
        return None
    near = (window.burst_near(event.id, at, width) for window in windows)
    return next((burst for burst in near if burst), event.id)


def _key(case: Case, velocity: VelocityFilter) -> WindowKey:
    return case.event.org_unit, case.root.lead_id, case.root.epoch, velocity.revision
