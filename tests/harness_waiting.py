"""Waiting for conditions, never for time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")
_POLL_S = 0.02


@overload
async def until(condition: Callable[[], Awaitable[T]], seconds: float = 10) -> T: ...
@overload
async def until(condition: Callable[[], T], seconds: float = 10) -> T: ...
async def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true result of `condition`, sync or async; AssertionError with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        result = await found if inspect.isawaitable(found) else found
        if result:
            return result
        assert time.monotonic() < deadline, (
            f"not within {seconds} s: {_text(condition)}, last {result!r}"
        )
        await asyncio.sleep(_POLL_S)


def until_now(condition: Callable[[], T], seconds: float = 10) -> T:
    """`until` for tests without an event loop."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, (
            f"not within {seconds} s: {_text(condition)}, last {result!r}"
        )
        time.sleep(_POLL_S)
    return result


def _text(condition: Callable[[], object]) -> str:
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):
        return repr(condition)
