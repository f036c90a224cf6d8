"""Turns: how many are at work at once, in which order, and that nobody is held up for long."""

import asyncio
from contextlib import suppress

from processor.turns import Turns

FOR_EVER = 3_600.0


class Work:
    """What several do in turns; each goes on when it is told to."""

    def __init__(self, turns: Turns) -> None:
        self.begun: list[int] = []
        self.ends = [asyncio.Event() for _ in range(5)]
        self._turns = turns

    async def do(self, number: int) -> None:
        async with self._turns.turn():
            self.begun.append(number)
            await self.ends[number].wait()


async def idle() -> None:
    """Everybody goes on until nothing is left to do."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_so_many_work_at_once_and_whoever_came_first_is_next() -> None:
    """As soon as one of them has ended."""
    work = Work(Turns(2, FOR_EVER))
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work.do(number))
        await idle()
        assert work.begun == [0, 1]
        work.ends[1].set()
        await idle()
        assert work.begun == [0, 1, 2]
        work.ends[0].set()
        work.ends[2].set()
        await idle()
        assert work.begun == [0, 1, 2, 3, 4]
        work.ends[3].set()
        work.ends[4].set()


async def test_whoever_has_waited_long_enough_works_without_a_turn() -> None:
    """Those that hang do not hold up the rest, and an extra one that ends gives nobody a turn."""
    turns = Turns(1, FOR_EVER)
    hangs, waits = Work(turns), Work(turns)
    async with asyncio.TaskGroup() as group:
        group.create_task(hangs.do(0))
        await idle()
        turns.patience_s = 0.0
        group.create_task(waits.do(1))
        async with asyncio.timeout(5):
            while not waits.begun:  # noqa: ASYNC110 - the end of the patience is no signal
                await asyncio.sleep(0.001)
        waits.ends[1].set()
        await idle()
        turns.patience_s = FOR_EVER
        group.create_task(waits.do(2))
        await idle()
        assert waits.begun == [1]
        hangs.ends[0].set()
        await idle()
        assert waits.begun == [1, 2]
        waits.ends[2].set()


async def test_a_turn_that_fails_or_is_given_up_is_free_again() -> None:
    """Whether it had begun or was still waited for."""
    turns = Turns(1, FOR_EVER)
    work = Work(turns)
    with suppress(ZeroDivisionError):
        async with turns.turn():
            1 / 0  # noqa: B018
    first, waiting = asyncio.create_task(work.do(0)), asyncio.create_task(work.do(1))
    await idle()
    for task in (waiting, first):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    last = asyncio.create_task(work.do(2))
    await idle()
    assert work.begun == [0, 2]
    work.ends[2].set()
    await last
