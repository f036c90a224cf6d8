"""What the worker waits for: which dependencies are away, since when, and who needs them.

A line is logged when the first one begins to wait for a dependency and when the last one need not
any more; readiness and the watch over stalled lanes ask here.
"""

from collections.abc import Callable, Hashable, Mapping
from time import monotonic

import structlog

from processor import telemetry
from processor.failures import Retryable

log = structlog.get_logger(__name__)


class Waits:
    """Keeps who waits for what; a waiter waits for one dependency at a time."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Hashable, tuple[str, float]] = {}
        """By waiter: the dependency, and up to when its waiting is counted."""
        self._since: dict[str, float] = {}

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._waiting

    @property
    def away(self) -> Mapping[str, float]:
        """Dependencies that somebody waits for, each with the seconds since when."""
        now = self._clock()
        return {dependency: now - since for dependency, since in self._since.items()}

    def begin(self, waiter: Hashable, failure: Retryable) -> None:
        """The waiter tries again until `over`; to say so again only tells how long it has waited."""
        dependency, now = failure.dependency, self._clock()
        if waiter in self._waiting and self._waiting[waiter][0] == dependency:
            self._waited(waiter, now)
            return
        self.over(waiter)
        self._waiting[waiter] = dependency, now
        telemetry.WAITING.labels(dependency).inc()
        if dependency not in self._since:
            self._since[dependency] = now
            log.warning("dependency_away", dependency=dependency, reason=failure.reason)

    def over(self, waiter: Hashable) -> None:
        """The waiter goes on, or is gone."""
        if waiter not in self._waiting:
            return
        now = self._clock()
        self._waited(waiter, now)
        dependency, _ = self._waiting.pop(waiter)
        telemetry.WAITING.labels(dependency).dec()
        if all(other != dependency for other, _ in self._waiting.values()):
            seconds = now - self._since.pop(dependency)
            log.info("dependency_back", dependency=dependency, seconds=round(seconds, 3))

    def _waited(self, waiter: Hashable, now: float) -> None:
        """Counts the time up to now, so that the metric grows while the wait goes on."""
        dependency, counted = self._waiting[waiter]
        telemetry.WAITING_SECONDS.labels(dependency).inc(now - counted)
        self._waiting[waiter] = dependency, now
