"""What a worker refuses at its start, what it asks of Postgres, and that it waits for a server that goes away."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from processor.embedded import Stack
from tests.harness import Message, Worker, World, processor, produce, read_topic, until

NOWHERE = "127.0.0.1:1"
FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {id: vf, name: Bursts, event_type: page_view, threshold: 4, window_ms: 60000}
"""

Start = Callable[..., Worker]


def refusal(environment: Mapping[str, str]) -> str:
    """The one line with which a worker refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", "worker"],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", NOWHERE),
        ("REDIS_URL", f"redis://{NOWHERE}/0"),
        ("DATABASE_URL", f"postgresql://postgres@{NOWHERE}/postgres"),
    ],
)
async def test_a_server_that_cannot_be_reached_at_the_start_is_named_with_its_setting(
    world: World, variable: str, url: str
) -> None:
    """Exit code 2 and one line that says which variable to look at."""
    await world.create_topics()
    assert variable in refusal({**world.environment(), variable: url})


async def test_a_redis_that_may_evict_windows_is_refused(world: World) -> None:
    """The line names the policy and the command that mends it."""
    await world.create_topics()
    with redis.Redis.from_url(world.redis) as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
        try:
            line = refusal(world.environment())
        finally:
            connection.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in line
    assert "CONFIG SET maxmemory-policy noeviction" in line


async def test_a_database_without_the_schema_is_refused(world: World, empty_database: str) -> None:
    """The line names `processor migrate`."""
    await world.create_topics()
    assert "processor migrate" in refusal({**world.environment(), "DATABASE_URL": empty_database})


def test_a_missing_topic_is_refused(world: World) -> None:
    """The line names the topic and `processor topics create`."""
    line = refusal(world.environment())
    assert world.raw in line
    assert "processor topics create" in line


def events(numbers: range) -> list[Message]:
    """Page views of a few leads, a second of event time apart for each."""
    return [
        Message(
            json.dumps(
                {
                    "id": f"e-{n:06}",
                    "org_unit": "acme",
                    "lead_id": f"lead-{n % 7}",
                    "event_type": "page_view",
                    "timestamp": f"2026-01-02T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                }
            ).encode(),
            key=f"lead-{n % 7}".encode(),
        )
        for n in numbers
    ]


async def published(world: World, number: int) -> list[dict[str, Any]]:
    """The enriched events, once there are that many."""

    async def enough() -> list[dict[str, Any]]:
        records = await read_topic(world.kafka, world.enriched)
        return [json.loads(record.value or b"") for record in records] * (len(records) >= number)

    return await until(enough, 90)


async def rows(world: World) -> dict[str, str | None]:
    """The verdict of each stored event."""
    connection = await asyncpg.connect(world.postgres)
    found = await connection.fetch("SELECT id, suppression_reason FROM events")
    await connection.close()
    return {row["id"]: row["suppression_reason"] for row in found}


@pytest.mark.timeout(120)
async def test_64_partitions_take_at_most_10_connections(world: World, start_worker: Start) -> None:
    """Under load, with every lane busy."""
    await world.create_topics(64)
    worker = start_worker(world.environment())
    await worker.ready(40)
    await produce(
        world.kafka,
        world.raw,
        [Message(m.value, m.key, partition=n % 64) for n, m in enumerate(events(range(20_000)))],
    )
    connection = await asyncpg.connect(world.postgres)
    most = 0

    async def done() -> bool:
        nonlocal most
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'processor' AND datname = current_database()"
        most = max(most, await connection.fetchval(query))
        return bool(await connection.fetchval("SELECT count(*) = 20000 FROM events"))

    await until(done, 60)
    await connection.close()
    assert 1 < most <= 10


@pytest.mark.fault
@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["postgres", "redis", "kafka"])
async def test_a_server_that_restarts_under_load_costs_nothing(
    world: World, start_worker: Start, stack: Stack, server: str, tmp_path: Path
) -> None:
    """Every event has one row and one message, and verdicts are those of an undisturbed run."""
    assert stack.pids.get(server), "unset the servers' URLs: this test restarts its own"
    await world.create_topics()
    (tmp_path / "filters.yaml").write_text(FILTERS)
    processor(world.environment(), "filters", "apply", str(tmp_path / "filters.yaml"))
    worker = start_worker(world.environment())
    await worker.ready(40)
    await produce(world.kafka, world.raw, events(range(3_000)))
    await published(world, 1)
    stack.restart(server)
    await produce(world.kafka, world.raw, events(range(3_000, 6_000)))
    messages = await published(world, 6_000)
    assert worker.running, worker.output[-3000:]
    assert await worker.stop() == 0
    # Each lead has an event every 7 s, so a minute holds 9 of them: from the fifth on all exceed.
    expected = {f"e-{n:06}": None if n // 7 < 4 else "inorganic" for n in range(6_000)}
    assert {message["id"]: message["suppression_reason"] for message in messages} == expected
    assert len(messages) == 6_000
    assert await rows(world) == expected
