"""How a cost may grow with what it depends on, and whether it does: pure.

Costs are of runs on a machine that others use too, so every limit leaves room for noise; growth that is of another order is far
beyond any of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Literal, NamedTuple


class Cost(NamedTuple):
    """What one event costs, µs, where what is varied is `x`."""

    x: float
    micros: float


class Finding(NamedTuple):
    """By what factor it grows, in the terms of its rule, and what is the most."""

    factor: float
    most: float

    @property
    def holds(self) -> bool:
        """It does not grow faster than it must."""
        return self.factor <= self.most


@dataclass(frozen=True)
class Rule:
    """What a series must be like, at most; costs come in the order of `x`."""

    kind: Literal["flat", "logarithmic", "linear"]
    most: float

    def __str__(self) -> str:
        match self.kind:
            case "flat":
                return f"flat: no point over {self.most:g} × the first"
            case "logarithmic":
                return f"logarithmic: no more than {self.most:g} × for ten times as many"
            case "linear":
                return f"linear: one more costs no more than {self.most:g} × what one did before"

    def judge(self, costs: Sequence[Cost]) -> Finding:
        """Of two points at least."""
        match self.kind:
            case "flat":
                found = max(one.micros for one in costs[1:]) / costs[0].micros
            case "logarithmic":
                found = max(_for_ten_times(*pair) for pair in pairwise(costs))
            case "linear":
                found = _of_one_more(costs)
        return Finding(round(found, 2), self.most)


def _for_ten_times(before: Cost, after: Cost) -> float:
    """The growth between two points, for a factor of ten; from nothing to something is one such step."""
    grown = after.micros / before.micros
    return float(grown ** (1 / log10(after.x / before.x))) if before.x else grown


def _of_one_more(costs: Sequence[Cost]) -> float:
    """What one more costs in the last step beside what it did in all before, which is no less than the tenth of a first point."""
    first, before, last = costs[0], costs[-2], costs[-1]
    slope = max(before.micros - first.micros, 0.1 * first.micros) / (before.x - first.x)
    return (last.micros - before.micros) / (last.x - before.x) / slope
