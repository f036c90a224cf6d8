"""Workers that die, freeze, wake up and come back."""

import asyncio
import os
import signal
import time
from functools import partial

from tests import harness
from tests.faults.field import Field
from tests.faults.matrix import Bitten, row
from tests.faults.points import PROCESSING, PUBLISHING
from tests.faults.promise import Promise
from tests.faults.steps import calm

FROZEN_S = 6.0
"""Longer than the session and the transaction of the workers here."""
DEAF_S = 20
"""Longer than the rebalance, and than a worker waits for a lane that it has cancelled."""
DRAINED_S = 30.0
DAY_S = 86_400
FENCED = '"event": "lane_fenced"'
BATCHES = 20
AT_LEAST_ONCE = (*PROCESSING, "mid_sends", "after_sends", "after_commit")
"""The points there are without a transaction."""


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
    seen: dict[str, int] = {}
    async with field.sending(rate=150):
        for point in (*PROCESSING, *PUBLISHING):
            await calm(field)
            seen[point] = await _zombie(field, point)
    field.heal()
    fenced = [point for point, times in seen.items() if times]
    revoked = ", ".join(point for point, times in seen.items() if not times)
    text = f"zombies whose lanes others had, {len(fenced)} of them fenced"
    return Bitten(len(seen), f"{text}; revoked before they published: {revoked or 'none'}")


async def _zombie(field: Field, point: str) -> int:
    """Freezes a worker until the group has given its lanes away, and wakes it: how many of its lanes were fenced."""
    before = {worker.pid: await _rebalances(worker) for worker in field.workers}
    zombie = await field.strike(point, "SIGSTOP")
    fenced = zombie.output.count(FENCED)
    await asyncio.sleep(FROZEN_S)
    others = [worker for worker in field.workers if worker is not zombie]
    taken = [await _rebalances(worker) > before[worker.pid] for worker in others]
    assert all(taken), f"nobody took the lanes of the worker that was frozen {point}"
    os.kill(zombie.pid, signal.SIGCONT)
    await harness.until(partial(_back, zombie, before[zombie.pid]), 60)
    await zombie.ready(60)
    return zombie.output.count(FENCED) - fenced


async def _back(worker: harness.Worker, before: float) -> bool:
    """The group has given it lanes again."""
    return await _rebalances(worker) > before


async def _rebalances(worker: harness.Worker) -> float:
    return (await worker.metrics()).get("processor_rebalances_total", 0.0)


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


@row("lane that outlasts its partition's revocation, deaf to its cancellation")
async def slow_revoke(field: Field) -> Bitten:
    """Its worker is evicted; what it publishes in the end is fenced."""
    await field.start(2)
    async with field.sending(rate=300):
        await field.strike("after_record", f"HOLD:{DEAF_S}")
        late = field.launch()
        await late.ready(60)
        await harness.until(lambda: field.logged("lane_fenced"), 60)
    field.heal()
    return Bitten(field.logged("lane_fenced"), "times fenced")


@row("SIGTERM under load: drained in time, nothing redelivered")
async def drained(field: Field) -> Bitten:
    """Members come and go in order; no transaction is ever aborted."""
    await field.start(2)
    async with field.sending():
        for leaves in range(3):
            await field.start(1)
            begun = time.monotonic()
            assert await field.workers[leaves].stop() == 0
            assert time.monotonic() - begun < DRAINED_S
    field.heal()
    await field.settle()
    topic = field.world.enriched
    whole = len(await harness.read_topic(field.world.kafka, topic, "read_uncommitted"))
    seen = len(await harness.read_topic(field.world.kafka, topic))
    assert whole == seen, f"{whole - seen} messages were published and taken back"
    return Bitten(field.logged("worker_drained"), "workers drained")


@row("wall clock of one of two workers a day ahead, then a day behind")
async def clock_skew(field: Field) -> Bitten:
    """Event time decides; the two share leads' windows by turns, since lanes change hands."""
    await field.start(1)
    ages = []
    async with field.sending():
        for skew in (DAY_S, -DAY_S):
            (skewed,) = await field.start(1, SKEW_S=str(skew))
            await harness.until(partial(_works, skewed), 30)
            ages.append(await _age_s(skewed))
            assert await skewed.stop() == 0
    field.heal()
    ahead, behind = ages
    skewed_days = (ahead > DAY_S / 2) + (behind == 0)
    assert skewed_days == len(ages), f"records were {ahead:.1f} s old, and then {behind:.1f} s"
    return Bitten(
        skewed_days, f"workers to which records were {ahead:,.0f} s old, and not of the past at all"
    )


async def _works(worker: harness.Worker) -> bool:
    """It has published what became of some batches."""
    found = await worker.metrics()
    published = found.get("processor_published_seconds_count", 0)
    return published > 0 and found.get("processor_batch_events_count", 0) > BATCHES


async def _age_s(worker: harness.Worker) -> float:
    """How old records were by its wall clock when it published what became of them, on average; 0 where they were of the future."""
    found = await worker.metrics()
    return found["processor_published_seconds_sum"] / found["processor_published_seconds_count"]


@row("at_least_once: worker killed at each of 8 points")
async def killed_at_least_once(field: Field) -> Bitten:
    """What was sent and not committed comes again, with the verdicts it had."""
    _at_least_once(field)
    await field.start(2)
    async with field.sending():
        for point in AT_LEAST_ONCE:
            dead = await field.strike(point, "SIGKILL")
            assert await dead.ended() == -signal.SIGKILL
            field.launch()
    field.heal()
    gone = sum(worker.returncode == -signal.SIGKILL for worker in field.workers)
    return Bitten(gone, "workers killed")


@row("at_least_once: worker frozen past its session, then woken")
async def frozen_at_least_once(field: Field) -> Bitten:
    """What was published and not committed is published once more, by the zombie or by who has its lanes now."""
    _at_least_once(field)
    await field.start(2)
    async with field.sending(rate=300):
        for point in ("after_record", "mid_sends", "after_sends"):
            zombie = await field.strike(point, "SIGSTOP")
            await asyncio.sleep(FROZEN_S)
            os.kill(zombie.pid, signal.SIGCONT)
            await zombie.ready(60)
    field.heal()
    published = [message.key for message in (await field.settle()).published]
    return Bitten(len(published) - len(set(published)), "messages published again")


def _at_least_once(field: Field) -> None:
    field.environment["PROCESSING_GUARANTEE"] = "at_least_once"
    field.promise = Promise(exactly_once=False)
