"""Ends what may hang.

A time that runs out cancels once, and aiokafka's closing may swallow that, or end as if it were cancelled itself: whoever
waited for it would then wait for ever, or be cancelled by nobody.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from processor.failures import Failure
from processor.terminal import refused

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


async def then_exit(serving: Coroutine[Any, Any, int]) -> NoReturn:
    """Ends the process with the exit code of what serves, once it has closed all it has; where that fails, as any command ends.

    A search for patterns, in a thread, may take minutes.  Nobody wants any more what it finds, but asyncio and Python would wait.
    """
    try:
        code = await serving
    except Failure as failure:
        code = refused(failure)
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """Ends the process, whatever its threads are at; what it has logged and printed is written, where it can be."""
    logging.shutdown()
    outputs: list[TextIO | None] = [sys.stdout, sys.stderr]  # None where it was closed at the start
    for output in filter(None, outputs):
        with suppress(OSError, ValueError):
            output.flush()
    os._exit(code)


def gave_up() -> bool:
    """Whether a cancellation that has just been met is of something waited for, not of the task that waits."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
