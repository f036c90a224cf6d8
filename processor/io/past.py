"""The past of windows as Postgres remembers it: what Redis is filled from, and what it no longer reaches.

A row remembers what its decision did to windows: whether it was counted, and the burst of each keep-first filter it exceeded.
Rows older than a filter are folded in processing order, as if the filter had always been there.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence, Set
from operator import itemgetter
from typing import Any, TypeAlias

from msgspec import Struct

from processor.failures import Retryable
from processor.io.postgres import Postgres
from processor.pure.types import Event, VelocityFilter

_TOUCHES_A_CALL = 200
"""Late events that one statement judges, each from thousands of rows."""

_Exceeding: TypeAlias = tuple[int, str, str]
"""Time, event id, burst id."""


class Window(Struct, frozen=True):
    """One filter's window on one surviving lead in one epoch."""

    org_unit: str
    lead_id: str
    epoch: int
    velocity: VelocityFilter


class Contents(Struct, frozen=True):
    """What a window holds above its floor."""

    floor: int
    members: Sequence[tuple[int, str]]
    """(time, event id)"""
    exceeding: Sequence[_Exceeding]


class Past:
    """Reads the past from Postgres; every method raises `Retryable` while that is away."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def newest(self) -> int | None:
        """The newest event time any lane has committed, ms; None where nothing is stored."""
        newest: int | None = await self._postgres.fetchval("newest_event")
        return newest

    async def windows(
        self, wanted: Sequence[tuple[Window, int]], lateness_ms: int
    ) -> list[Contents]:
        """Contents of windows, each with an event time at hand; what was committed before the call is in them."""
        floors: dict[int, int] = {}
        members: dict[int, list[tuple[int, str]]] = {n: [] for n in range(len(wanted))}
        rows = await self._postgres.fetch_by_keys(
            "window_members",
            *_columns([window for window, _ in wanted]),
            [at for _, at in wanted],
            [window.velocity.window_ms for window, _ in wanted],
            [window.velocity.threshold + 1 for window, _ in wanted],
            lateness_ms,
        )
        for n, floor, event_id, at in rows:
            floors[n - 1] = floor
            if event_id is not None:
                members[n - 1].append((at, event_id))
        exceeding = await self._exceeding([window for window, _ in wanted], floors)
        return [Contents(floors[n], members[n], exceeding[n]) for n in range(len(wanted))]

    async def around(
        self, touches: Sequence[tuple[Window, Event]], batch: Sequence[Event]
    ) -> tuple[list[tuple[int, str | None]], Set[int]]:
        """For each event in a window the members in (time − window, time], exact up to N + 1, and the burst of another
        exceeding event less than a window away; and the numbers of the events of `batch` that are stored already.
        """
        rows: list[Any] = []
        known: set[frozenset[int]] = set()
        for at in range(0, len(touches), _TOUCHES_A_CALL):
            part = await self._seen(touches[at : at + _TOUCHES_A_CALL], batch)
            rows += part
            known.add(frozenset(part[0][3]))
        stored, *others = known
        if others:
            # What is stored counts in the past, what is not in the fold: it must be the same for all of them.
            raise Retryable("postgres", "events of the batch were stored while the past was read")
        folds: dict[Window, list[_Exceeding]] = {}
        seen = [
            (count, burst or await self._past_burst(window, event, folds))
            for (window, event), (_, count, burst, _) in zip(touches, rows, strict=True)
        ]
        return seen, {n - 1 for n in stored}

    async def _seen(
        self, touches: Sequence[tuple[Window, Event]], batch: Sequence[Event]
    ) -> list[Any]:
        """For each touch its number, count and burst, and the numbers of the events of `batch` that are stored."""
        rows = await self._postgres.fetch_by_keys(
            "seen_in_store",
            *_columns([window for window, _ in touches]),
            [event.occurred_at for _, event in touches],
            [window.velocity.window_ms for window, _ in touches],
            [window.velocity.threshold + 1 for window, _ in touches],
            [_revision(window.velocity) for window, _ in touches],
            [event.id for _, event in touches],
            [event.org_unit for event in batch],
            [event.id for event in batch],
        )
        return sorted(rows, key=itemgetter(0))

    async def _exceeding(
        self, windows: Sequence[Window], floors: dict[int, int]
    ) -> list[list[_Exceeding]]:
        found: list[list[_Exceeding]] = [[] for _ in windows]
        grouped = [n for n, window in enumerate(windows) if window.velocity.keep_first]
        if not grouped:
            return found
        chosen = [windows[n] for n in grouped]
        rows = await self._postgres.fetch_by_keys(
            "window_exceeding",
            *_columns(chosen),
            [floors[n] for n in grouped],
            [window.velocity.window_ms for window in chosen],
            [_revision(window.velocity) for window in chosen],
        )
        for n, event_id, at, burst in rows:
            found[grouped[n - 1]].append((at, event_id, burst))
        for n in grouped:
            if _reaches_past(windows[n].velocity, floors[n]):
                folded = [fact for fact in await self._fold(windows[n]) if fact[0] > floors[n]]
                found[n] += _outermost(folded, windows[n].velocity.window_ms)
        return found

    async def _past_burst(
        self, window: Window, event: Event, folds: dict[Window, list[_Exceeding]]
    ) -> str | None:
        velocity, at = window.velocity, event.occurred_at
        if not velocity.keep_first or not _reaches_past(velocity, at - velocity.window_ms):
            return None
        if window not in folds:
            folds[window] = await self._fold(window)
        found = folds[window]
        for near in range(bisect_left(found, (at - velocity.window_ms + 1, "", "")), len(found)):
            other_at, other, burst = found[near]
            if other_at >= at + velocity.window_ms:
                return None
            if other != event.id:
                return burst
        return None

    async def _fold(self, window: Window) -> list[_Exceeding]:
        """The exceeding events of a keep-first filter among the rows that are older than it."""
        velocity = window.velocity
        rows = await self._postgres.fetch_by_keys(
            "past_members", window.org_unit, window.lead_id, velocity.event_type, velocity.revision
        )
        return fold_past([(at, event_id) for event_id, at in rows], velocity)


def _reaches_past(velocity: VelocityFilter, above: int) -> bool:
    """Whether rows older than the filter may lie above a time."""
    return velocity.newest is not None and velocity.newest > above


def fold_past(members: Sequence[tuple[int, str]], velocity: VelocityFilter) -> list[_Exceeding]:
    """The exceeding events among `members`, (time, id) in processing order, had the filter always been there."""
    width = velocity.window_ms
    times: list[int] = []
    exceeding: list[_Exceeding] = []  # ascending
    for at, event_id in members:
        insort(times, at)
        if bisect_right(times, at) - bisect_right(times, at - width) <= velocity.threshold:
            continue
        near = bisect_left(exceeding, (at - width + 1, "", ""))
        inherits = near < len(exceeding) and exceeding[near][0] < at + width
        insort(exceeding, (at, event_id, exceeding[near][2] if inherits else event_id))
    return exceeding


def _outermost(exceeding: Sequence[_Exceeding], width: int) -> list[_Exceeding]:
    """Of ascending exceeding events the first and the last of each window-aligned slice: what windows keep."""
    first: dict[int, _Exceeding] = {}
    last: dict[int, _Exceeding] = {}
    for fact in exceeding:
        first.setdefault(fact[0] // width, fact)
        last[fact[0] // width] = fact
    return sorted({*first.values(), *last.values()})


def _revision(velocity: VelocityFilter) -> str | None:
    """How rows name the filter in `exceeded`."""
    return str(velocity.revision) if velocity.keep_first else None


def _columns(windows: Sequence[Window]) -> tuple[list[str], list[str], list[str]]:
    return (
        [window.org_unit for window in windows],
        [window.lead_id for window in windows],
        [window.velocity.event_type for window in windows],
    )
