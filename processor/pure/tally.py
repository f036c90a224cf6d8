"""What a preview tells: how many events and leads a filter would suppress, by day, the newest of them, and what it would change."""

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nlargest
from typing import TypeAlias

from msgspec import Struct

from processor.pure.types import Reason, Ruling

DAY_MS = 86_400_000
SAMPLES = 20
Judged: TypeAlias = tuple[Ruling, bool, bool]
"""What the filter says of an event; whether it is suppressed today, and whether by that very filter."""


class Sample(Struct, frozen=True, order=True):
    """An event that would be suppressed; the newest is the greatest."""

    occurred_at: int
    id: str
    reason: Reason
    count: int | None
    """Velocity: how many events were in its window, at least."""
    burst_id: str | None


class Tally:
    """Counts rulings of one filter on events that are told of: in the range, and not deleted."""

    def __init__(self) -> None:
        self.events = 0
        self.suppressed = 0
        self.newly = 0
        """Would be suppressed, and are not."""
        self.no_longer = 0
        """Are suppressed by the filter as it is now, and would not be."""
        self._leads: set[str] = set()
        self._events_of: Counter[int] = Counter()  # by day
        self._suppressed_of: Counter[int] = Counter()
        self._samples: list[Sample] = []

    @property
    def leads(self) -> int:
        """How many leads have events that would be suppressed."""
        return len(self._leads)

    @property
    def days(self) -> Iterator[tuple[int, int, int]]:
        """Days with events, ascending: since 1970, its events, those that would be suppressed."""
        for day in sorted(self._events_of):
            yield day, self._events_of[day], self._suppressed_of[day]

    @property
    def samples(self) -> Sequence[Sample]:
        """The newest events that would be suppressed, newest first."""
        return self._samples

    def add(self, judged: Sequence[Judged]) -> None:
        """More events."""
        hits = [one for one in judged if one[0].reason is not None]
        self.events += len(judged)
        self.suppressed += len(hits)
        self.newly += sum(not suppressed for _, suppressed, _ in hits)
        self.no_longer += sum(by_it for ruling, _, by_it in judged if ruling.reason is None)
        self._leads.update(ruling.case.root.lead_id for ruling, _, _ in hits)
        self._events_of.update(_days(judged))
        self._suppressed_of.update(_days(hits))
        newest = nlargest(SAMPLES, hits, key=_age)
        self._samples = nlargest(SAMPLES, [*self._samples, *map(_sample, newest)])


def _days(judged: Sequence[Judged]) -> Iterator[int]:
    return (ruling.case.event.occurred_at // DAY_MS for ruling, _, _ in judged)


def _age(judged: Judged) -> tuple[int, str]:
    event = judged[0].case.event
    return event.occurred_at, event.id


def _sample(judged: Judged) -> Sample:
    event, reason = judged[0].case.event, judged[0].reason
    by = judged[0].suppressed_by or {}
    count, burst = by.get("count"), by.get("burst_id")
    assert reason is not None  # noqa: S101 - it is a hit
    return Sample(
        event.occurred_at,
        event.id,
        reason,
        count if isinstance(count, int) else None,
        burst if isinstance(burst, str) else None,
    )
