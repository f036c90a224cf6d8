"""The exceeding events of a keep-first filter among events that are older than it, had it always been there.

Events come in processing order, in parts of any size; what is remembered of them is their times, and of each window-aligned slice
the first and the last that exceeded: these are less than a window away from whatever any of the slice is.
"""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from processor.pure.types import VelocityFilter

Exceeding: TypeAlias = tuple[int, str, str]
"""Time, event id, burst id."""
_ENDS = 2
"""The first and the last."""


class Fold:
    """The fold of one window."""

    def __init__(self, velocity: VelocityFilter) -> None:
        self._threshold = velocity.threshold
        self._width = velocity.window_ms
        self._times = array("q")  # ascending
        self._exceeding: list[Exceeding] = []  # ascending; at most two of a slice

    @property
    def exceeding(self) -> Sequence[Exceeding]:
        """Ascending: of each slice the first and the last."""
        return self._exceeding

    def add(self, members: Iterable[tuple[int, str]]) -> None:
        """The next events, each with its time, in processing order."""
        times, width = self._times, self._width
        for at, event_id in members:
            until = bisect_right(times, at)
            times.insert(until, at)
            if until + 1 - bisect_right(times, at - width) > self._threshold:
                self._exceed(at, event_id)

    def _exceed(self, at: int, event_id: str) -> None:
        found, width = self._exceeding, self._width
        near = bisect_left(found, (at - width + 1, "", ""))
        inherits = near < len(found) and found[near][0] < at + width
        burst = found[near][2] if inherits else event_id
        start = at - at % width
        low = bisect_left(found, (start, "", ""), near)
        high = bisect_left(found, (start + width, "", ""), low)
        if high - low < _ENDS:
            insort(found, (at, event_id, burst))
        elif at < found[low][0]:
            found[low] = (at, event_id, burst)
        elif at > found[low + 1][0]:
            found[low + 1] = (at, event_id, burst)
