"""The past of windows as Postgres remembers it: what Redis is filled from, and what it no longer reaches.

A row remembers what its decision did to windows: whether it was counted, and the burst of each keep-first filter it exceeded.
Rows older than a filter are folded in processing order, merges and unmerges between them, as if the filter had always been there.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any

from msgspec import Struct

from processor.failures import Retryable
from processor.io.postgres import Postgres
from processor.pure.past import Exceeding, Fold, Link
from processor.pure.types import Event, VelocityFilter

_TOUCHES_A_CALL = 200
"""Late events that one statement judges, each from thousands of rows."""
HELD_A_CALL = 50_000
"""Members of windows that are built at once, nearly: a window that would hold more than its share is held less far back."""
_CALM_WITHIN = 100_000
"""Rows among which the end of a burst is looked for, before a whole past is folded."""


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
    exceeding: Sequence[Exceeding]


class _Kin:
    """Raw leads whose rows, and merges and unmerges, tell what exceeds in windows of any of them."""

    def __init__(self, roots: Mapping[str, str], links: Sequence[Link]) -> None:
        self.roots = roots
        """Of each of those that were ever one, be it through others, who it is one with now."""
        self.links = links
        self._one: dict[str, list[str]] = {}
        for lead, root in roots.items():
            self._one.setdefault(root, []).append(lead)

    def one_with(self, lead: str) -> Sequence[str]:
        """Those that are one with it now."""
        return self._one[self.roots[lead]]


class Past:
    """Reads the past from Postgres; every method raises `Retryable` while that is away."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def newest(self) -> int | None:
        """The newest event time any lane has committed, ms; None where nothing is stored."""
        newest: int | None = await self._postgres.fetchval("newest_event")
        return newest

    async def generations(self, shards: Sequence[str]) -> Mapping[str, str]:
        """The generation of windows begun last in each of these shards, which are all there are from now on."""
        rows = await self._postgres.fetch("window_generations", shards)
        return {row["shard"]: row["generation"] for row in rows}

    async def begun(self, generations: Mapping[str, str]) -> None:
        """Remembers generations of windows, by shard: no other one may go on there."""
        shards = list(generations)
        await self._postgres.execute("windows_begun", shards, list(generations.values()))

    async def windows(
        self, wanted: Sequence[tuple[Window, int]], lateness_ms: int
    ) -> list[Contents]:
        """Contents of windows, each with an event time at hand; what was committed before the call is in them."""
        if not wanted:
            return []
        floors: dict[int, int] = {}
        members: dict[int, list[tuple[int, str]]] = {n: [] for n in range(len(wanted))}
        rows = await self._postgres.fetch_by_keys(
            "window_members",
            *_columns([window for window, _ in wanted]),
            [at for _, at in wanted],
            [window.velocity.window_ms for window, _ in wanted],
            [window.velocity.threshold + 1 for window, _ in wanted],
            lateness_ms,
            HELD_A_CALL // len(wanted),
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
        folds = await self._folds(
            (window, event.occurred_at - window.velocity.window_ms) for window, event in touches
        )
        seen = [
            (count, burst or _burst_near(event, folds.get(window, ()), window.velocity.window_ms))
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
    ) -> list[list[Exceeding]]:
        found: list[list[Exceeding]] = [[] for _ in windows]
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
        folds = await self._folds((windows[n], floors[n]) for n in grouped)
        for n in grouped:
            found[n] += [fact for fact in folds.get(windows[n], ()) if fact[0] > floors[n]]
        return found

    async def _folds(
        self, asked: Iterable[tuple[Window, int]]
    ) -> Mapping[Window, Sequence[Exceeding]]:
        """Of the windows of keep-first filters that reach below these filters what exceeds there: above the times given, and some below.

        Leads that were ever one have one past, which is folded once for all their windows.
        """
        above: dict[Window, int] = {}
        for window, at in asked:
            if window.velocity.keep_first and _reaches_past(window.velocity, at):
                above[window] = min(at, above.get(window, at))
        alike: dict[tuple[_Kin, VelocityFilter], list[Window]] = {}
        for window, kin in (await self._kin(above)).items():
            alike.setdefault((kin, window.velocity), []).append(window)
        folds: dict[Window, Sequence[Exceeding]] = {}
        for (kin, _), windows in alike.items():
            fold = await self._fold(windows[0], kin, min(above[window] for window in windows))
            folds |= {window: fold.exceeding(kin.one_with(window.lead_id)) for window in windows}
        return folds

    async def _fold(self, window: Window, kin: _Kin, above: int) -> Fold:
        """The rows that are older than a keep-first filter, folded as far back as tells what exceeds above a time."""
        velocity = window.velocity
        of = window.org_unit, list(kin.roots), velocity.event_type
        calm = above, velocity.window_ms, _CALM_WITHIN, velocity.threshold
        begins = await self._postgres.fetchval("past_begins", *of, *calm)
        fold = Fold(velocity, kin.links)
        async for part in self._postgres.stream_by_keys(
            "past_members", *of, velocity.revision, begins
        ):
            fold.add(part)
        return fold

    async def _kin(self, windows: Iterable[Window]) -> Mapping[Window, _Kin]:
        """Read before the rows, which were all there when the filter came into force: a merge that is missed here holds the locks of
        its leads after each of theirs was recorded, so its batch is later than any that is folded.  Where rows stand by then is looked
        up with them.
        """
        found: dict[Window, _Kin] = {}
        known: dict[tuple[str, str], _Kin] = {}
        for window in windows:
            org_unit, lead = window.org_unit, window.lead_id
            if window.epoch == 0:  # it never was in a merge
                found[window] = _Kin({lead: lead}, ())
                continue
            if (org_unit, lead) not in known:
                (row,) = await self._postgres.fetch_by_keys("past_links", org_unit, lead)
                kin = _Kin(**row)
                known |= dict.fromkeys(((org_unit, other) for other in kin.roots), kin)
            found[window] = known[org_unit, lead]
        return found


def _reaches_past(velocity: VelocityFilter, above: int) -> bool:
    """Whether rows older than the filter may lie above a time."""
    return velocity.newest is not None and velocity.newest > above


def _burst_near(event: Event, exceeding: Sequence[Exceeding], width: int) -> str | None:
    """The burst of another exceeding event less than a window away, of ascending ones."""
    at = event.occurred_at
    for near in range(bisect_left(exceeding, (at - width + 1, "", "")), len(exceeding)):
        other_at, other, burst = exceeding[near]
        if other_at >= at + width:
            return None
        if other != event.id:
            return burst
    return None


def _revision(velocity: VelocityFilter) -> str | None:
    """How rows name the filter in `exceeded`."""
    return str(velocity.revision) if velocity.keep_first else None


def _columns(windows: Sequence[Window]) -> tuple[list[str], list[str], list[str]]:
    return (
        [window.org_unit for window in windows],
        [window.lead_id for window in windows],
        [window.velocity.event_type for window in windows],
    )
