"""Postgres restored from a backup, as the runbook has it: what came after the backup is decided again, from the topics."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from processor.embedded import Stack
from tests import harness
from tests.harness_secured import restored_places
from tests.traffic import Record, Shape, stream
from tests.traffic_filters import FIRST
from tests.verdict_run import Run

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(300)]
StartWorker = Callable[..., harness.Worker]


async def lost_and_restored(server: str, database: str, backup: str) -> None:
    """The database is what the backup says."""
    await asyncio.to_thread(harness.drop_database, server, database)
    await asyncio.to_thread(
        harness.execute, server, f"CREATE DATABASE {database} TEMPLATE {backup}"
    )


async def go_back_to_what_is_stored(run: Run) -> None:
    """The runbook's step: each partition goes on where its lane had come to, merges from the beginning."""
    stored = await restored_places(
        run.world.postgres, {"'processor'": run.world.group, "'events.raw'": run.world.raw}
    )
    assert sorted(stored) == [0, 1, 2, 3]
    places = [(run.world.raw, p, str(to)) for p, to in stored.items()]
    places += [(run.world.merges, p, "earliest") for p in range(4)]
    for topic, partition, to in places:
        asked = ("--topic", topic, "--partition", str(partition), "--to", to)
        await asyncio.to_thread(
            harness.processor, run.world.environment(), "offsets", "reset", *asked
        )


async def sent(run: Run, records: Sequence[Record], start_worker: StartWorker) -> None:
    """By a new worker, and settled."""
    await run.work(start_worker)
    await run.send(records)
    await run.settled()


async def test_a_restored_database_gets_everything_it_lacks_with_the_same_verdicts(
    world: harness.World, stack: Stack, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Redis is emptied too: it knows rows that are no more.  Readers see some events again, with the same ids and verdicts."""
    run = Run(world, tmp_path)
    made = stream(Shape(31, time.time_ns() // 1_000_000 - 300_000, 2_000))
    await world.create_topics(4)
    await run.apply(FIRST)
    await sent(run, made.halves[0], start_worker)
    assert await run.workers[0].stop() == 0
    database = urlsplit(world.postgres).path[1:]
    backup = await asyncio.to_thread(harness.create_database, stack.postgres, database)
    await sent(run, made.halves[1], start_worker)
    published = await run.verdicts()
    run.workers[0].kill()
    await lost_and_restored(stack.postgres, database, backup)
    harness.flush_redis(world.redis)
    lacking = len(published) - len(await run.rows())
    await go_back_to_what_is_stored(run)
    await sent(run, [], start_worker)
    assert await run.row_problems() == []
    assert (lacking > 0, len(await run.rows())) == (True, len(published))
    again = await run.verdicts()
    assert {event: set(said) for event, said in again.items()} == {
        event: set(said) for event, said in published.items()
    }
    assert sum(map(len, again.values())) > len(published)
    await asyncio.to_thread(harness.drop_database, stack.postgres, backup)
