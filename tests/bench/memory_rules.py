"""Whether memory stays where it is, and within what is promised of windows: pure."""

from collections.abc import Sequence
from itertools import combinations
from math import ceil
from statistics import median
from typing import NamedTuple

MOST_GROWTH = 0.05
"""Of what is there at half time, over the second half."""
SLACK_MB = 8.0
_MOST_POINTS = 200


class Trend(NamedTuple):
    """Of the second half of a run."""

    half: float
    """Where it stands at half time, MB."""
    grown: float
    """What the slope adds by the end, MB."""

    @property
    def flat(self) -> bool:
        """No more than a twentieth and a little."""
        return self.grown <= self.half * MOST_GROWTH + SLACK_MB


def trend(events: Sequence[int], megabytes: Sequence[float]) -> Trend:
    """The median of the slopes between any two samples of the second half: no few of them can move it."""
    begun = next(n for n, done in enumerate(events) if done >= events[-1] / 2)
    step = -(-(len(events) - begun) // _MOST_POINTS)
    points = list(zip(events[begun::step], megabytes[begun::step], strict=True))
    slope = median((b - a) / (y - x) for (x, a), (y, b) in combinations(points, 2) if y > x)
    near = [mb for done, mb in zip(events, megabytes, strict=True) if done <= events[-1] * 0.55]
    return Trend(median(near[begun:]), slope * (events[-1] - events[begun]))


def most_members(threshold: int, window_ms: int, lateness_ms: int) -> int:
    """Of a window: the first and last N + 1 of each slice that may be asked for."""
    return 2 * (threshold + 1) * (ceil(lateness_ms / window_ms) + 3)
