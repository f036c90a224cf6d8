"""Whether something grows: the judgement over what was sampled, robust against single high samples."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

MOST_GROWTH = 1.1
LONG_MIN = 10.0
"""Half a soak has to be this long before its slope says anything about an hour."""
MOST_POINTS = 200


class Bound(NamedTuple):
    """How much something may grow and is flat all the same."""

    slack: float
    """Beside a tenth, from the second quarter to the last one."""
    hourly: float
    """As the slope of the second half."""


class Growth(NamedTuple):
    """Of one number of one process."""

    second: float
    """The median of the second quarter."""
    last: float
    """Of the last one."""
    hourly: float
    """The slope of the second half."""
    flat: bool


def growth(minutes: Sequence[float], values: Sequence[float], bound: Bound) -> Growth:
    """Of values taken at these minutes, in order."""
    quarter, half = len(values) // 4, len(values) // 2
    second, last = median(values[quarter:half]), median(values[-quarter:])
    hourly = 60 * theil_sen(minutes[half:], values[half:])
    flat = last <= second * MOST_GROWTH + bound.slack
    if minutes[-1] - minutes[half] >= LONG_MIN:
        flat = flat and hourly <= bound.hourly
    return Growth(second, last, hourly, flat)


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between any two of at most `MOST_POINTS` points: no few of them can move it."""
    step = -(-len(times) // MOST_POINTS)
    points = list(zip(times[::step], values[::step], strict=True))
    return median((v - u) / (t - s) for (s, u), (t, v) in combinations(points, 2) if t > s)
