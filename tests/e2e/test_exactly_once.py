"""Two workers, exactly once: whatever happens to one of them inside a step, each input has one output.

The faults are real: SIGKILL, and SIGSTOP long enough for the other worker to take over and the
transaction to time out, then SIGCONT.  A test that only kills passes workers that are not safe.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.faulty import Feed, Start, all_published, numbered, start_faulty, struck
from tests.harness import World, produce, read_topic

__all__ = ["start_faulty"]

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(150)]

KILLED_AT = (
    "before_process",
    "after_process",
    "before_begin",
    "after_begin",
    "mid_sends",
    "after_sends",
    "after_offsets",
    "after_commit",
)
FROZEN_AT = ("before_begin", "after_offsets")
FROZEN_S = 6.0
"""Longer than the session and the transaction of the workers here."""


async def test_workers_killed_in_every_step_leave_one_output_for_each_input(
    world: World, start_faulty: Start, tmp_path: Path
) -> None:
    """Each time the other worker aborts what is open and takes up at the committed offset."""
    await world.create_topics()
    workers = [start_faulty(world) for _ in range(2)]
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        for step in KILLED_AT:
            dead = await struck(tmp_path, step, workers)
            assert await dead.ended() == -signal.SIGKILL
            workers.append(start_faulty(world))
        feed.end()
    found = await all_published(world, feed.count)
    assert set(found.values()) == {1}


async def test_workers_frozen_inside_a_transaction_are_fenced_when_they_wake(
    world: World, start_faulty: Start, tmp_path: Path
) -> None:
    """They wake with a transaction and lanes that are no longer theirs, and join again."""
    await world.create_topics()
    workers = [start_faulty(world, FAULT_SIGNAL="SIGSTOP") for _ in range(2)]
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        for step in FROZEN_AT:
            frozen = await struck(tmp_path, step, workers)
            await asyncio.sleep(FROZEN_S)
            await all_published(world, feed.count)
            os.kill(frozen.pid, signal.SIGCONT)
            await frozen.ready()
        feed.end()
    found = await all_published(world, feed.count)
    assert set(found.values()) == {1}
    assert [await worker.stop() for worker in workers] == [0, 0]


async def test_a_worker_frozen_for_25_s_inside_its_transaction_duplicates_nothing(
    world: World, start_faulty: Start, tmp_path: Path
) -> None:
    """With the session and transaction timeouts that the product has."""
    await world.create_topics()
    faults = {"FAULT_SIGNAL": "SIGSTOP", "TUNING": "product"}
    workers = [start_faulty(world, **faults) for _ in range(2)]
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        frozen = await struck(tmp_path, "mid_sends", workers)
        await asyncio.sleep(25)
        os.kill(frozen.pid, signal.SIGCONT)
        feed.end()
    found = await all_published(world, feed.count, 40)
    assert set(found.values()) == {1}
    assert [await worker.stop() for worker in workers] == [0, 0]


async def test_a_graceful_drain_redelivers_nothing(world: World, start_faulty: Start) -> None:
    """What is in flight is finished: no transaction is ever aborted, no batch begun twice."""
    await world.create_topics()
    first = start_faulty(world)
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        await all_published(world, 300)
        assert await first.stop() == 0
        second = start_faulty(world)
        await all_published(world, feed.count)
        feed.end()
    found = await all_published(world, feed.count)
    assert set(found.values()) == {1}
    with_aborted = await read_topic(world.kafka, world.enriched, "read_uncommitted")
    assert len(with_aborted) == feed.count
    assert await second.stop() == 0


async def test_workers_that_come_and_go_duplicate_nothing(
    world: World, start_faulty: Start
) -> None:
    """Every rebalance takes all partitions away and gives them again."""
    await world.create_topics()
    workers = [start_faulty(world)]
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        for leaves in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            workers.append(start_faulty(world))
            await workers[-1].ready()
            workers[-2].send(leaves)
        feed.end()
    found = await all_published(world, feed.count)
    assert set(found.values()) == {1}
    await produce(world.kafka, world.raw, numbered(1, feed.count))
    assert set((await all_published(world, feed.count + 1)).values()) == {1}
