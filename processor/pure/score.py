"""Scores: what a lead's organic events are worth, each half as much after every week.

A score is kept as a sum that no passing of time changes: ``total · 2^week``, in the worth of 1970.  A half-life of one week makes
every shift between weeks a power of two, which binary numbers hold exactly: sums differ by the rounding of additions alone,
whatever their order.  Within `TOLERANCE` a score is a function of the set of its events; sums of leads are scores of their union.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

HALF_LIFE_MS = 7 * 86_400_000
TOLERANCE = 1e-9
"""Relative, for sums of up to a million events."""
_DECIMALS = 6
_LARGEST = math.nextafter(math.inf, 0)
_BEYOND = 2_000
"""Weeks after which nothing of a double is left beside another one."""


class Score(Struct, frozen=True):
    """A sum of weights, each worth half as much a week later."""

    week: int = 0
    total: float = 0.0

    @property
    def rank(self) -> float:
        """Orders scores as they are at any time: all of them fade alike."""
        return self.week + math.log2(self.total) if self.total else -math.inf


NOTHING = Score()


def worth(weight: float, at: int) -> Score:
    """The score of one event."""
    week, rest = divmod(at, HALF_LIFE_MS)
    return Score(week, weight * 2 ** (rest / HALF_LIFE_MS)) if weight else NOTHING


def added(scores: Iterable[Score]) -> Score:
    """The score of all their events."""
    some = [score for score in scores if score.total]
    if not some:
        return NOTHING
    week = max(score.week for score in some)
    return Score(week, math.fsum(_in(week, score) for score in some))


def score_at(score: Score, at: int) -> float:
    """What the events are worth at a time, in weights; those after that time are worth more than their weight."""
    week, rest = divmod(at, HALF_LIFE_MS)
    weeks = min(score.week - week, _BEYOND)
    try:
        found = math.ldexp(score.total * 2 ** (-rest / HALF_LIFE_MS), weeks)
    except OverflowError:
        found = _LARGEST
    return round(found, _DECIMALS)


def _in(week: int, score: Score) -> float:
    return math.ldexp(score.total, max(score.week - week, -_BEYOND))
