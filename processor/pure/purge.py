"""Which events are old enough to go: not those that could come again, nor those that a verdict may still look at."""

from collections.abc import Mapping

from msgspec import Struct

from processor.pure.findings import length

_FOR_EVER = -1


class Widest(Struct, frozen=True):
    """The velocity filter with the longest window."""

    org_unit: str
    id: str
    window_ms: int


class Limits(Struct, frozen=True):
    """What a horizon has to reach beyond."""

    topic: str
    configs: Mapping[str, str]
    """Of the raw topic."""
    widest: Widest | None
    lateness_ms: int


def refusal(horizon_ms: int, limits: Limits) -> str | None:
    """Why events of that age must stay, and what to do; None where they may go."""
    asked, topic = f"--older-than {length(horizon_ms)}", limits.topic
    retention_ms = int(limits.configs["retention.ms"])
    if retention_ms == _FOR_EVER or "delete" not in limits.configs["cleanup.policy"]:
        return (
            f"{topic} keeps messages for ever, and whatever is purged could come again from there:"
            f" set retention.ms and cleanup.policy=delete of {topic} first"
        )
    if horizon_ms <= retention_ms:
        return (
            f"{asked} is too short: {topic} keeps messages for {length(retention_ms)} (retention.ms), and a redelivered"
            f" one would bring its event back; choose more than {length(retention_ms)}"
        )
    widest = limits.widest
    needed_ms = 0 if widest is None else 2 * widest.window_ms + limits.lateness_ms
    if widest and horizon_ms < needed_ms:
        return (
            f"{asked} is too short: filter {widest.id} of {widest.org_unit} looks back 2 × {length(widest.window_ms)}"
            f" (window_ms) + {length(limits.lateness_ms)} (ALLOWED_LATENESS); choose at least {length(needed_ms)}"
        )
    return None


def cutoff(now: int, oldest_unread: int | None, horizon_ms: int) -> int:
    """Events before it go: the horizon counts from the oldest message that is not processed yet, whatever the clock says."""
    return (now if oldest_unread is None else min(now, oldest_unread)) - horizon_ms
