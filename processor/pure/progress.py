"""Liveness is progress of offsets, not a living process: since when has nothing moved that should."""

from collections.abc import Hashable, Mapping

from msgspec import Struct


class View(Struct, frozen=True):
    """One thing that should move, as it is now."""

    at: int
    """Its offset, or another number that changes when it moves."""
    expected: bool
    """It has something to do and all it needs."""


class Mark(Struct, frozen=True):
    """How far it was when it last moved, or was last not expected to."""

    at: int
    since_s: float


Marks = Mapping[Hashable, Mark]


def observe(marks: Marks, views: Mapping[Hashable, View], now_s: float) -> Marks:
    """The marks after a look at all things; what is no longer there is forgotten."""
    return {
        key: mark
        if (mark := marks.get(key)) and view.expected and mark.at == view.at
        else Mark(view.at, now_s)
        for key, view in views.items()
    }


def stalled(marks: Marks, now_s: float, limit_s: float) -> list[Hashable]:
    """What should have moved for longer than the limit."""
    return [key for key, mark in marks.items() if now_s - mark.since_s > limit_s]
