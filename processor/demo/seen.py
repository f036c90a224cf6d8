"""What the demo has seen so far: counts, and the last of each kind.  Times are seconds on any clock that only goes forward."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

REASONS = (None, "inorganic", "inorganic_grouped", "metadata_filter")
HISTORY_S = 60
LATENCY_S = 10.0
KEPT = 40


class Suppressed(NamedTuple):
    """A suppressed event, as it was read."""

    at: str
    lead: str
    event_type: str
    reason: str
    filter: str
    events: int | None
    threshold: int | None


class Merged(NamedTuple):
    """A merge, as its event tells it."""

    lead: str
    sources: tuple[str, ...]
    moved: int


class Dead(NamedTuple):
    """A dead letter."""

    stage: str
    error: str
    reason: str


@dataclass
class Seen:
    """Filled by the watchers, shown by the screen."""

    reasons: Counter[str | None] = field(default_factory=Counter)
    merges: int = 0
    letters: int = 0
    suppressed: deque[Suppressed] = field(default_factory=lambda: deque(maxlen=KEPT))
    merged: deque[Merged] = field(default_factory=lambda: deque(maxlen=KEPT))
    dead: deque[Dead] = field(default_factory=lambda: deque(maxlen=KEPT))
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the worker, summed over labels."""
    _latencies: deque[tuple[float, float]] = field(default_factory=deque)
    _rates: Counter[int] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        """Enriched events that were read."""
        return sum(self.reasons.values())

    @property
    def lag(self) -> int:
        """Input records the worker has not committed yet."""
        return int(self.metrics.get("processor_lag_records", 0))

    @property
    def duplicates(self) -> int:
        """Known ids that came again."""
        return int(self.metrics.get("processor_duplicates_total", 0))

    def event(self, reason: str | None, now: float, latency_s: float) -> None:
        """An enriched event was read at `now`, `latency_s` after it was produced."""
        self.reasons[reason] += 1
        self._rates[int(now)] += 1
        self._latencies.append((now, latency_s))
        while self._latencies[0][0] < now - LATENCY_S:
            self._latencies.popleft()
        for second in [s for s in self._rates if s < now - HISTORY_S]:
            del self._rates[second]

    def rates(self, now: float, seconds: int) -> list[int]:
        """Events of each of the last whole seconds, the oldest first."""
        return [self._rates[s] for s in range(int(now) - seconds, int(now))]

    def latency_ms(self, *shares: float) -> list[float]:
        """Milliseconds within which these shares of the last events could be read."""
        ordered = sorted(latency for _, latency in self._latencies)
        if not ordered:
            return [0.0 for _ in shares]
        return [ordered[min(int(len(ordered) * s), len(ordered) - 1)] * 1000 for s in shares]
