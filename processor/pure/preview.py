"""A filter over stored events, as if it had always been there: the same triage and fold that workers decide with.

Rows come lead by lead, each lead's in processing order, in chunks of any size.  What a worker would read of a window (Redis and
Postgres) is kept here from chunk to chunk, of one lead at a time: when the next lead begins, it is forgotten.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec import Struct

from processor.pure.triage import triage
from processor.pure.types import Case, Event, Json, Root, Rules, Ruling, Seen, VelocityFilter
from processor.pure.velocity import decide

_NOTHING = Seen(0, cached=False, from_store=False, stored=False, burst_id=None)
_CALM = Seen(0, cached=False, from_store=False, stored=False, burst_id=None, calm=True)
_BLOCK = 2_000


class _Nowhere(Struct, frozen=True):
    """The record of an event that comes from no topic."""

    topic: str = ""
    partition: int = 0
    offset: int = 0
    timestamp: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


_NOWHERE = _Nowhere()


def stored_event(org_unit: str, row: tuple[str, str, str, dict[str, Json], int]) -> Event:
    """An event as its row has it: surviving lead, id, type, metadata, time."""
    lead_id, event_id, event_type, metadata, occurred_at = row
    return Event(
        record=_NOWHERE,
        org_unit=org_unit,
        id=event_id,
        lead_id=lead_id,
        event_type=event_type,
        metadata=metadata,
        metadata_json=b"",
        occurred_at=occurred_at,
    )


class Times:
    """Times of events, sorted, in blocks: a late one moves few of the others."""

    def __init__(self, block: int = _BLOCK) -> None:
        self._most = block
        self._blocks: list[array[int]] = []
        self._lasts: list[int] = []  # of each block

    def add(self, at: int) -> None:
        """One more; several may be equal."""
        if not self._blocks:
            self._blocks.append(array("q"))
            self._lasts.append(at)
        n = min(bisect_left(self._lasts, at), len(self._blocks) - 1)
        block = self._blocks[n]
        insort(block, at)
        if len(block) > self._most:
            half = len(block) // 2
            self._blocks[n : n + 1] = [block[:half], block[half:]]
            self._lasts.insert(n, block[half - 1])
            n += 1
        self._lasts[n] = self._blocks[n][-1]

    def count(self, above: int, until: int, enough: int) -> int:
        """How many are in (above, until]; where there are more than `enough`, any number from there up to that."""
        found = 0
        for n in range(min(bisect_right(self._lasts, until), len(self._lasts) - 1), -1, -1):
            if self._lasts[n] <= above or found > enough:
                break
            block = self._blocks[n]
            found += bisect_right(block, until) - bisect_right(block, above)
        return found


class _Bursts:
    """Exceeding events: of each window-aligned slice the first and the last, which tell of any less than a window away."""

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._slices: dict[int, tuple[tuple[int, str], tuple[int, str]]] = {}

    def add(self, at: int, burst: str) -> None:
        fact = at, burst
        first, last = self._slices.get(at // self._window_ms, (fact, fact))
        self._slices[at // self._window_ms] = min(first, fact), max(last, fact)

    def near(self, at: int) -> str | None:
        """The burst of an exceeding event less than a window away, on either side."""
        n = at // self._window_ms
        for facts in (self._slices.get(n - 1), self._slices.get(n), self._slices.get(n + 1)):
            for other, burst in facts or ():
                if abs(other - at) < self._window_ms:
                    return burst
        return None


class _Past:
    """What was folded of one lead before the chunk at hand."""

    def __init__(self, lead_id: str | None, velocity: VelocityFilter | None) -> None:
        self.lead_id = lead_id
        self._velocity = velocity
        self._newest = -(1 << 62)
        self._times = Times()
        self._bursts = _Bursts(velocity.window_ms if velocity else 1)

    def seen(self, at: int) -> Seen:
        """What a worker reads of the window for an event that is not stored yet."""
        velocity = self._velocity
        assert velocity is not None  # noqa: S101 - only events that it watches are asked for
        if self._newest <= at - velocity.window_ms:
            return _NOTHING
        count = self._times.count(at - velocity.window_ms, at, velocity.threshold)
        burst = self._bursts.near(at) if velocity.keep_first else None
        return Seen(count, cached=False, from_store=False, stored=False, burst_id=burst)

    def add(self, ruling: Ruling) -> None:
        """What the row of a ruling does to the window."""
        if ruling.case.watching:
            at = ruling.case.event.occurred_at
            self._newest = max(self._newest, at)
            self._times.add(at)
            for burst in ruling.facts.exceeded.values():
                self._bursts.add(at, burst)


class Preview:
    """The fold of one filter, `rules` holding nothing else, over the rows of one org unit."""

    def __init__(self, rules: Rules, velocity: VelocityFilter | None) -> None:
        self._rules = rules
        self._velocity = velocity
        self._past = _Past(None, velocity)

    def judge(self, rows: Sequence[tuple[Event, bool]]) -> list[Ruling]:
        """Rulings on the next events, each with whether it was counted, and so would be by the filter.

        A reason is what the filter says, None also for the first of a burst.
        """
        cases = [
            triage(event, Root(event.lead_id, 0), self._rules, counted=counted)
            for event, counted in rows
        ]
        seen = [answers for of_lead in _by_lead(cases) for answers in self._seen(of_lead, cases)]
        rulings = decide(cases, seen, {}, self._rules.revision)
        self._keep(rulings)
        return rulings

    def _seen(self, of_lead: Sequence[Case], cases: Sequence[Case]) -> Iterator[Sequence[Seen]]:
        lead_id = of_lead[0].root.lead_id
        if lead_id == self._past.lead_id:
            for case in of_lead:
                yield [self._past.seen(case.event.occurred_at)] if case.watching else ()
            return
        whole = lead_id != cases[-1].root.lead_id  # it ends within the chunk
        answer = [_CALM if whole and not self._can_exceed(of_lead) else _NOTHING]
        for case in of_lead:
            yield answer if case.watching else ()

    def _can_exceed(self, of_lead: Sequence[Case]) -> bool:
        """Whether more than the threshold of a lead's events, these being all, lie in one window at all."""
        velocity = self._velocity
        if velocity is None:
            return False
        times = sorted(case.event.occurred_at for case in of_lead if case.watching)
        pairs = zip(times, times[velocity.threshold :], strict=False)
        return any(last - first < velocity.window_ms for first, last in pairs)

    def _keep(self, rulings: Sequence[Ruling]) -> None:
        lead_id = rulings[-1].case.root.lead_id if rulings else None
        if lead_id is None or self._velocity is None:
            return
        if lead_id != self._past.lead_id:
            self._past = _Past(lead_id, self._velocity)
        for ruling in rulings:
            if ruling.case.root.lead_id == lead_id:
                self._past.add(ruling)


def _by_lead(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for _, of_lead in groupby(cases, key=lambda case: case.root.lead_id):
        yield list(of_lead)
