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

    configs: Mapping[str, Mapping[str, str]]
    """Of each input topic: rows come from either."""
    widest: Widest | None
    lateness_ms: int
    surge_ms: int
    """The window of surges."""


def refusal(horizon_ms: int, limits: Limits) -> str | None:
    """Why events of that age must stay, and what to do; None where they may go."""
    return _kept_by_kafka(horizon_ms, limits.configs) or _looked_at(horizon_ms, limits)


def _kept_by_kafka(horizon_ms: int, topics: Mapping[str, Mapping[str, str]]) -> str | None:
    kept = {topic: int(configs["retention.ms"]) for topic, configs in topics.items()}
    for topic, configs in topics.items():
        if kept[topic] == _FOR_EVER or "delete" not in configs["cleanup.policy"]:
            return (
                f"{topic} keeps messages for ever, and whatever is purged could come again from there:"
                f" set retention.ms and cleanup.policy=delete of {topic} first"
            )
    topic = max(kept, key=kept.__getitem__)
    if horizon_ms > kept[topic]:
        return None
    return (
        f"--older-than {length(horizon_ms)} is too short: {topic} keeps messages for {length(kept[topic])} (retention.ms),"
        f" and a redelivered one would bring its event back; choose more than {length(kept[topic])}"
    )


def _looked_at(horizon_ms: int, limits: Limits) -> str | None:
    asked, late = (
        f"--older-than {length(horizon_ms)}",
        f"{length(limits.lateness_ms)} (ALLOWED_LATENESS)",
    )
    widest = limits.widest
    needed_ms = 0 if widest is None else 2 * widest.window_ms + limits.lateness_ms
    if widest and horizon_ms < needed_ms:
        return (
            f"{asked} is too short: filter {widest.id} of {widest.org_unit} looks back 2 × {length(widest.window_ms)}"
            f" (window_ms) + {late}; choose at least {length(needed_ms)}"
        )
    needed_ms = limits.surge_ms + limits.lateness_ms
    if horizon_ms < needed_ms:
        return (
            f"{asked} is too short: surges are looked for {length(limits.surge_ms)} (SURGE_WINDOW) + {late} back;"
            f" choose at least {length(needed_ms)}"
        )
    return None


def cutoff(now: int, oldest_unread: int | None, horizon_ms: int) -> int:
    """Events before it go: the horizon counts from the oldest message that is not processed yet, whatever the clock says."""
    return (now if oldest_unread is None else min(now, oldest_unread)) - horizon_ms
