"""What closes may hang, swallow its cancellation or end as if it were cancelled: who waits for it does none of that."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest

from processor.io.ending import ended, gave_up
from processor.io.kafka_reading import stopped

SOON_S = 0.01


async def hangs() -> None:
    """Until it is cancelled."""
    await asyncio.Event().wait()


async def swallows_its_cancellation() -> None:
    """As a client that suppresses it while it waits for a task of its own, and then waits for something else."""
    with suppress(asyncio.CancelledError):
        await hangs()
    await hangs()


async def ends_as_if_cancelled() -> None:
    """As a client that waits for what somebody has cancelled before."""
    raise asyncio.CancelledError


async def fails() -> None:
    """As a client that cannot say goodbye."""
    raise ConnectionResetError


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    """No test waits longer than it must."""
    async with asyncio.timeout(5):
        yield


@pytest.mark.parametrize("closing", [hangs, swallows_its_cancellation, ends_as_if_cancelled, fails])
async def test_however_it_closes_whoever_waits_goes_on(closing: Callable[[], object]) -> None:
    """Neither for ever, nor with an error, nor cancelled by nobody."""
    async with at_once():
        await ended(closing(), SOON_S)  # type: ignore[arg-type]


async def test_who_is_cancelled_while_it_waits_is_cancelled() -> None:
    """And so is what it waits for."""
    waiting = asyncio.create_task(ended(hangs(), 60))
    await asyncio.sleep(0)
    waiting.cancel()
    async with at_once():
        await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_cancellation_tells_whose_it_is() -> None:
    """Of what was waited for, or of the task that waits."""
    told: list[bool] = []

    async def waits(for_what: Callable[[], object]) -> None:
        try:
            await for_what()  # type: ignore[misc]
        except asyncio.CancelledError:
            told.append(gave_up())

    await asyncio.create_task(waits(ends_as_if_cancelled))
    task = asyncio.create_task(waits(hangs))
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert told == [True, False]


async def test_a_consumer_whose_goodbye_hangs_is_closed_all_the_same() -> None:
    """What fetches for it ends too, and its connections close."""
    closed: list[str] = []

    def part(name: str) -> SimpleNamespace:
        async def close() -> None:
            closed.append(name)

        return SimpleNamespace(close=close)

    consumer = SimpleNamespace(stop=hangs, _fetcher=part("fetcher"), _client=part("client"))
    async with at_once():
        await stopped(consumer, SOON_S)
    assert closed == ["fetcher", "client"]


PROGRAM = """
import asyncio, threading
from processor.failures import StartRefused
from processor.io.ending import then_exit

async def serving():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    print("served")
    {}

asyncio.run(then_exit(serving()))
"""


def exited(ending: str, redirected: str = "") -> tuple[int, str, str]:
    """Code, output and errors of a process that serves so while one of its threads never ends."""
    command = [sys.executable, "-c", PROGRAM.format(ending)]
    shell = ["sh", "-c", f'exec "$@" {redirected}', "sh"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [*shell, *command], check=False, capture_output=True, text=True, timeout=20, env=buffered
    )
    return done.returncode, done.stdout, done.stderr


def test_a_process_ends_with_its_code_and_its_output_whatever_its_threads_are_at() -> None:
    """What it printed is written, although nobody asked for that."""
    assert exited("return 3") == (3, "served\n", "")


def test_a_failure_ends_a_process_whatever_its_threads_are_at() -> None:
    """In one line and with exit code 2, as it ends every command."""
    assert exited('raise StartRefused("no topic")') == (2, "served\n", "processor: no topic\n")


def test_a_defect_ends_a_process_whatever_its_threads_are_at() -> None:
    """As Python says it, with exit code 1."""
    code, said, errors = exited('raise LookupError("lost")')
    assert (code, said) == (1, "served\n")
    assert errors.startswith("Traceback ")
    assert errors.endswith("\nLookupError: lost\n")


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_where_nothing_can_be_written_the_exit_code_says_how_it_ended(redirected: str) -> None:
    """Closed at the start, or full: it is no reason for another code."""
    assert exited("return 3", redirected)[0] == 3
    assert exited('raise StartRefused("no topic")', redirected)[0] == 2
