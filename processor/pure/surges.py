"""Surges: many events of chosen types of one lead within a window, by event time.

An event surges when, with it, at least `threshold` of its lead lie in (t − window, t].  A surge is told once: for a surging event
with none told less than a window away, on either side.  So every surging event, also one that a late event has made surge, is less than a
window away from a surge that was told, and every one that was told is a surging event, whatever the order.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence

from msgspec import Struct


class SurgeRule(Struct, frozen=True):
    """What makes a surge."""

    types: frozenset[str]
    threshold: int
    """At least 2."""
    window_ms: int


def surges(times: Sequence[int], at: int, told: Collection[int], rule: SurgeRule) -> Sequence[int]:
    """The surges to tell now that an event at `at` is there.

    `times`: ascending, itself included, complete for the `threshold` − 1 events before it and after it; `told`: those near it.
    """
    place = bisect_right(times, at) - 1
    found: list[int] = []
    for last in range(place, min(place + rule.threshold, len(times))):
        first, time = last - rule.threshold + 1, times[last]
        if first < 0 or time - times[first] >= rule.window_ms:
            continue
        if all(abs(time - other) >= rule.window_ms for other in (*told, *found)):
            found.append(time)
    return found
