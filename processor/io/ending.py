"""Ends what may hang.

A time that runs out cancels once, and aiokafka's closing may swallow that, or end as if it were cancelled itself: whoever
waited for it would then wait for ever, or be cancelled by nobody.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

_INSIST_S = 0.1


async def ended(closing: Coroutine[Any, Any, object], within_s: float) -> None:
    """Returns when it has ended, however that was, or after `within_s`: then it is cancelled, and nobody waits for it any more."""
    task = asyncio.ensure_future(closing)
    task.add_done_callback(seen)
    try:
        await asyncio.wait([task], timeout=within_s)
    finally:
        task.cancel()
    await asyncio.wait([task], timeout=_INSIST_S)


def seen(ended: "asyncio.Future[Any]") -> None:
    """An error that nobody waits for any more is no news."""
    if not ended.cancelled():
        ended.exception()


def gave_up() -> bool:
    """Whether a cancellation that has just been met is of something waited for, not of the task that waits."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
