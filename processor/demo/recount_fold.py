"""The velocity filters over one window of stored rows, folded in processing order.

Exact and never trimmed.  It may import nothing of the program it checks.  Times are milliseconds.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence, Set
from typing import NamedTuple

import orjson


class Stored(NamedTuple):
    """A row of ``events``; JSON as text."""

    org_unit: str
    id: str
    lead_id: str
    original_lead_id: str | None
    event_type: str
    metadata: str
    suppression_reason: str | None
    suppressed_by: str | None
    at: int
    source: str
    rules: int
    counted: bool
    deleted: bool


class Velocity(NamedTuple):
    """An enabled velocity filter."""

    id: str
    name: str
    version: int
    threshold: int
    window_ms: int
    keep_first: bool


class Said(NamedTuple):
    """What one velocity filter says of one event; ``bursts`` are those it may join."""

    filter: Velocity
    events: int
    bursts: frozenset[str]

    @property
    def reason(self) -> str | None:
        """The filter's own verdict."""
        if self.events <= self.filter.threshold:
            return None
        if not self.filter.keep_first:
            return "inorganic"
        return "inorganic_grouped" if self.bursts else None


class Bursts:
    """The exceeding events of one filter: per slice of one window's width and burst, the first and the last time."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._slices: dict[int, dict[str, tuple[int, int]]] = {}

    def near(self, at: int) -> frozenset[str]:
        """Bursts with an event strictly less than the width away."""
        place, width, found = at // self._width, self._width, set()
        for here in (place - 1, place, place + 1):
            for burst, (first, last) in self._slices.get(here, {}).items():
                if last > at - width and first < at + width:
                    found.add(burst)
        return frozenset(found)

    def add(self, at: int, bursts: Set[str]) -> None:
        """An exceeding event of any of these bursts."""
        here = self._slices.setdefault(at // self._width, {})
        for burst in bursts:
            first, last = here.get(burst, (at, at))
            here[burst] = min(first, at), max(last, at)


class Fold:
    """All filters over one window, in processing order."""

    def __init__(self, filters: Sequence[Velocity]) -> None:
        self._filters = [(f, Bursts(f.window_ms)) for f in filters]
        self._times: list[int] = []

    def add(self, row: Stored) -> list[Said]:
        """What every filter says of the next member."""
        insort(self._times, row.at)
        until = bisect_right(self._times, row.at)
        found: list[Said] = []
        for f, bursts in self._filters:
            count = until - bisect_right(self._times, row.at - f.window_ms)
            near: frozenset[str] = frozenset()
            if f.keep_first and count > f.threshold:
                near = bursts.near(row.at)
                bursts.add(row.at, _carried(row, f, near))
            found.append(Said(f, count, near))
        return found


def _carried(row: Stored, f: Velocity, near: frozenset[str]) -> frozenset[str]:
    """The bursts an exceeding event carries on: of several it may join, the one its row names, where it names one."""
    if len(near) > 1 and row.suppressed_by:
        by = orjson.loads(row.suppressed_by)
        if by.get("filter_id") == f.id and by.get("burst_id") in near:
            return frozenset({by["burst_id"]})
    return near or frozenset({row.id})
