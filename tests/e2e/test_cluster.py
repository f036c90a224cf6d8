"""A worker on a cluster: whatever becomes of its nodes in mid-stream, every row and message is the oracle's."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import harness
from tests.harness_cluster import Cluster
from tests.traffic import Shape, stream
from tests.traffic_filters import FIRST
from tests.verdict_run import Run

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(240)]
StartWorker = Callable[..., harness.Worker]


def _flush_one(cluster: Cluster) -> None:
    cluster.ask(cluster.primaries()[1], "FLUSHALL")


def _restart_one(cluster: Cluster) -> None:
    name = next(name for name in cluster.primaries() if not cluster.replicas(name))
    cluster.kill(name)
    cluster.revive(name)


def _fail_over(cluster: Cluster) -> None:
    name = next(name for name in cluster.primaries() if cluster.replicas(name))
    heir = cluster.in_step(name)
    cluster.kill(name, signal.SIGSTOP)
    harness.until_now(lambda: cluster.is_primary(heir), 20)
    cluster.kill(name, signal.SIGCONT)


def _move_slots(cluster: Cluster) -> None:
    """Every second shard of one node, key by key."""
    source, target, *_ = cluster.primaries()
    moving = {slot for slot in cluster.used(source) if slot % 2}
    for slot in moving:
        cluster.moving(slot, source, target)
        for key in cluster.keys(source, slot):
            cluster.move([key], source, target)
        while left := cluster.keys(source, slot):
            cluster.move(left, source, target)
        cluster.moved(slot, target)


FAULTS = [_flush_one, _restart_one, _fail_over, _move_slots]


async def test_whatever_becomes_of_nodes_in_mid_stream_changes_no_verdict(
    world: harness.World, cluster: Cluster, start_worker: StartWorker, tmp_path: Path
) -> None:
    """One forgets everything, one restarts, one hangs until its replica takes over, one hands over half of what it has."""
    run = Run(dataclasses.replace(world, redis=cluster.url), tmp_path)
    await run.world.create_topics(4)
    await run.apply(FIRST)
    await run.work(start_worker)
    made = stream(Shape(21, time.time_ns() // 1_000_000 - 300_000, count=2_400))
    for half in made.halves:
        part = len(half) // len(FAULTS) + 1
        for n, fault in enumerate(FAULTS):
            await run.send(half[n * part : (n + 1) * part])
            await asyncio.to_thread(fault, cluster)
            await asyncio.to_thread(cluster.whole)
        await run.settled()
    await run.check()
    assert len(cluster.used(*cluster.primaries())) > len(cluster.primaries())
