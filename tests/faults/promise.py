"""What a run of the fault matrix promises."""

from dataclasses import dataclass

RECOVERY_S = 60.0
MOST_RSS_MB = 300.0
LATENESS_MS = 3_600_000


@dataclass(frozen=True)
class Promise:
    """What a run promises beyond the rest."""

    exactly_once: bool = True
    passes: int = 1
    """How often the input was processed from its start: each pass publishes the same once more."""
    unpublishable: frozenset[tuple[str, str]] = frozenset()
    """Events that are stored and too large to be published: each has a dead letter of its stage publish instead."""
    recovery_s: float = RECOVERY_S
    rss_mb: float = MOST_RSS_MB
    lateness_ms: int = LATENESS_MS
