"""`processor purge`: what it refuses, and what it removes while a worker runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from processor.io import filters
from processor.io.kafka import Cluster
from processor.io.kafka_past import Raw
from processor.io.postgres import Postgres
from processor.io.purge import Held
from tests import harness
from tests.contract.filter_world import file, velocity
from tests.e2e.operating import administering, configure
from tests.harness import Message, Worker, World, processor, produce, until

pytestmark = [pytest.mark.e2e]
DAY = 86_400_000
OLD = "UPDATE events SET received_at = received_at - interval '90 days', occurred_at = occurred_at - interval '90 days'"


def refusal(world: World, older_than: str) -> str:
    """The one line with which the command refuses."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", "purge", "--older-than", older_than],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **world.environment()},
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    return line


async def test_a_horizon_that_is_too_short_is_refused(world: World) -> None:
    """Each line names what stands in the way: the topic, or the filter."""
    assert "topic" in refusal(world, "180d")
    await world.create_topics(1)
    assert "--older-than is '1y'; allowed: " in refusal(world, "1y")
    assert f"{world.raw} keeps messages for 7d (retention.ms)" in refusal(world, "7d")
    await configure(world, world.raw, retention_ms="-1")
    assert f"{world.raw} keeps messages for ever" in refusal(world, "3650d")
    await configure(world, world.raw, retention_ms="3600000")
    assert f"{world.merges} keeps messages for 7d (retention.ms)" in refusal(world, "7d")
    await configure(world, world.merges, retention_ms="3600000")
    postgres = await Postgres.connect(world.postgres)
    await filters.apply(postgres, file(acme=[velocity("vf-30", window_ms=30 * DAY)]), "ann")
    await postgres.close()
    assert "filter vf-30 of acme looks back 2 × 30d (window_ms) + 1h" in refusal(world, "60d")


async def test_old_events_go_while_a_worker_runs(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """New ones stay; the audit log has it, and a redelivery of what stayed is known."""
    await world.create_topics(1)
    worker = start_worker(world.environment())
    event = b'{"id": "%s", "org_unit": "acme", "lead_id": "l", "event_type": "page_view"}'
    await produce(world.kafka, world.raw, [Message(event % b"a", b"l", 0)])
    await until(lambda: _ids(world, 1), 20)
    harness.execute(world.postgres, OLD)
    await produce(world.kafka, world.raw, [Message(event % b"b", b"l", 0)])
    await until(lambda: _ids(world, 2))
    purge = "purge", "--older-than", "30d"
    lines = processor(world.environment(), *purge).splitlines()
    assert lines[0] == "1 more stay: Kafka still holds their messages"
    assert lines[-1].startswith("0 events from before ")
    async with administering(world) as admin:
        await admin.delete_records({TopicPartition(world.raw, 0): RecordsToDelete(1)})
    lines = processor(world.environment(), *purge).splitlines()
    assert lines[0] == "acme: 1 events"
    assert lines[-1].startswith("1 events from before ")
    assert await _ids(world, 1) == ["b"]
    assert processor(world.environment(), *purge).startswith("0 events")
    assert await worker.stop() == 0


async def _ids(world: World, count: int) -> list[str]:
    postgres = await Postgres.connect(world.postgres, size=1)
    async with postgres.transaction() as connection:
        rows = await connection.fetch("SELECT id FROM events ORDER BY id")
    await postgres.close()
    return [row["id"] for row in rows] if len(rows) == count else []


async def test_what_kafka_holds_and_what_is_not_processed_is_known(world: World) -> None:
    """Messages that are still there, however old; the oldest that waits, by record timestamps."""
    await world.create_topics(2)
    raw = Raw(world.settings())
    await raw.look()
    assert (await raw.oldest_unread(), raw.held) == (None, [])
    now = time.time_ns() // 1_000_000
    old = [Message(b"{}", b"k", 0, now - n * DAY) for n in (3, 2, 1)]
    await produce(world.kafka, world.raw, [*old, Message(b"{}", b"k", 1, now - 4 * DAY)])
    await raw.look()
    assert await raw.oldest_unread() == now - 4 * DAY
    assert raw.held == [Held(0, 0, 3), Held(1, 0, 1)]
    async with administering(world) as admin:
        gone = {TopicPartition(world.raw, 0): 2, TopicPartition(world.raw, 1): 1}
        await admin.delete_records({p: RecordsToDelete(n) for p, n in gone.items()})
    await raw.look()
    assert raw.held == [Held(0, 2, 3)]


async def test_what_was_aborted_waits_for_nobody(world: World) -> None:
    """Only markers of transactions stand before the end: nothing is unread, and nothing is waited for."""
    await world.create_topics(1)
    producer = Cluster(world.settings()).producer(16_384, f"{world.id}.aborting")
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(world.raw, b"{}", partition=0)
    await producer.abort_transaction()
    await producer.stop()
    raw = Raw(world.settings())
    await raw.look()
    assert await raw.oldest_unread() is None
