"""The clock of the API, whose answers depend on now: today, expiry, and how far in the future an event may lie."""

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Milliseconds since 1970."""


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000
