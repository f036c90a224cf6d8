"""The steps of the start, and how long each takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

KAFKA, REDIS, POSTGRES = "Kafka", "Valkey", "Postgres"
SCHEMA, FILTERS, TOPICS, WORKER, API = "schema", "sample filters", "topics", "worker", "API"
ALL = (KAFKA, REDIS, POSTGRES, SCHEMA, FILTERS, TOPICS, WORKER, API)


@dataclass
class Steps:
    """When each step began and ended, in seconds since ``started``."""

    started: float
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)

    def waiting(self, *names: str) -> None:
        """These began with the start."""
        self.began.update(dict.fromkeys(names, 0.0))

    def done(self, name: str, took: float) -> None:
        """It began with the start and took so many seconds."""
        self.ended[name] = took

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """The step takes as long as the block, unless that raises."""
        self.began[name] = self.elapsed
        yield
        self.ended[name] = self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.started

    def took(self, name: str) -> float | None:
        """Seconds, so far where it goes on; None before it."""
        if name not in self.began:
            return None
        return self.ended.get(name, self.elapsed) - self.began[name]
