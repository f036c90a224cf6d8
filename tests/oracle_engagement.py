"""A recount of leads from the rows of their events, by definition and brute force.  It imports nothing of the processor.

Rows are dicts of `id`, `lead` (the one the event named), `type`, `at` (ms) and `reason`; `roots` maps merged-away leads to their roots.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WEEK = 7 * 24 * 3600 * 1000
HALF_HOUR = 30 * 60 * 1000
NO_ENGAGEMENT = ("Lead Merged", "Lead Unmerged")


@dataclass(frozen=True)
class Recounted:
    """What a root's organic events amount to."""

    events: int
    first: int
    last: int
    sessions: list[tuple[int, int, int]]
    """Start, end, events."""
    weighed: list[tuple[float, int]]
    """Weight and time of each event."""
    surging: frozenset[int]
    """Times of events that surge."""

    def score(self, at: int) -> float:
        """Each event halves in a week."""
        return math.fsum(weight * 2 ** ((time - at) / WEEK) for weight, time in self.weighed)


def recount(
    rows: Iterable[Mapping[str, Any]],
    roots: Mapping[str, str],
    weights: Mapping[str, float],
    surge: tuple[frozenset[str], int, int],
) -> dict[str, Recounted]:
    """By root; roots without organic events are left out.  `surge`: types, threshold, window in ms."""
    by_root: dict[str, list[Mapping[str, Any]]] = {}
    for row in {row["id"]: row for row in rows}.values():
        if row["reason"] is None and row["type"] not in NO_ENGAGEMENT:
            by_root.setdefault(roots.get(row["lead"], row["lead"]), []).append(row)
    return {root: _counted(own, weights, surge) for root, own in by_root.items()}


def _counted(
    rows: Sequence[Mapping[str, Any]],
    weights: Mapping[str, float],
    surge: tuple[frozenset[str], int, int],
) -> Recounted:
    times = sorted(row["at"] for row in rows)
    types, threshold, window = surge
    chosen = [row["at"] for row in rows if row["type"] in types]
    surging = {t for t in chosen if sum(t - window < other <= t for other in chosen) >= threshold}
    return Recounted(
        len(rows),
        times[0],
        times[-1],
        sessions(times),
        [(weights.get(row["type"], 0.0), row["at"]) for row in rows],
        frozenset(surging),
    )


def sessions(times: Sequence[int]) -> list[tuple[int, int, int]]:
    """Of ascending times: start, end and number of events."""
    found: list[tuple[int, int, int]] = []
    for time in times:
        if found and time - found[-1][1] <= HALF_HOUR:
            found[-1] = found[-1][0], time, found[-1][2] + 1
        else:
            found.append((time, time, 1))
    return found


def untold(surging: Iterable[int], told: Sequence[int], window: int) -> list[int]:
    """Surging events with no surge told less than a window away."""
    return [time for time in surging if all(abs(time - one) >= window for one in told)]
