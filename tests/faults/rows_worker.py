"""Workers that die, freeze, wake up and come back."""

import asyncio
import os
import signal

from tests.faults.field import Field
from tests.faults.matrix import Bitten, row
from tests.faults.points import PROCESSING, PUBLISHING

FROZEN_S = 6.0
"""Longer than the session and the transaction of the workers here."""


@row("worker killed at each of 10 points")
async def killed(field: Field) -> Bitten:
    """SIGKILL between any two steps; another one is started each time."""
    await field.start(2)
    async with field.sending():
        for point in (*PROCESSING, *PUBLISHING):
            dead = await field.strike(point, "SIGKILL")
            assert await dead.ended() == -signal.SIGKILL
            field.launch()
    field.heal()
    gone = sum(worker.returncode == -signal.SIGKILL for worker in field.workers)
    return Bitten(gone, "workers killed")


@row("worker frozen past its session at each of 10 points, then woken")
async def frozen(field: Field) -> Bitten:
    """SIGSTOP, the other worker takes over, SIGCONT: a zombie in every step."""
    await field.start(2)
    async with field.sending(rate=150):
        for point in (*PROCESSING, *PUBLISHING):
            zombie = await field.strike(point, "SIGSTOP")
            await asyncio.sleep(FROZEN_S)
            os.kill(zombie.pid, signal.SIGCONT)
            await zombie.ready(60)
    field.heal()
    return Bitten(field.logged("lane_fenced"), "times fenced")


@row("worker frozen before it fences its predecessors, woken when others have its lanes")
async def zombie_that_fences(field: Field) -> Bitten:
    """It fences the rightful owner when it wakes; that one joins again."""
    await field.start(2)
    async with field.sending(rate=300):
        for _ in range(2):
            field.arm("before_start", "SIGSTOP")
            field.launch()
            zombie = await field.struck()
            await asyncio.sleep(FROZEN_S)
            os.kill(zombie.pid, signal.SIGCONT)
            await zombie.ready(60)
    field.heal()
    return Bitten(field.logged("lane_fenced"), "times fenced")
