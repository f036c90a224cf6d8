"""`processor doctor` on real servers: nothing to say of what is as it should be, one line for each thing that is not."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from processor.doctor import look
from processor.io.kafka_topics import create_topics
from processor.pure.findings import Finding
from tests import harness
from tests.e2e.operating import configure
from tests.harness import Message, World, produce

pytestmark = [pytest.mark.e2e]
NOWHERE = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DATABASE_URL": "postgresql://127.0.0.1:1/nowhere",
}


def doctor(environment: dict[str, str]) -> tuple[int, list[str]]:
    """The exit code and the lines of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", "doctor"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


async def faults(world: World, **more: str) -> list[Finding]:
    """What is not ok."""
    return [one for one in await look(world.settings(**more)) if one.level != "ok"]


async def test_a_healthy_stack_is_all_ok(world: World) -> None:
    """A line for each thing that was looked at, and exit code 0."""
    await world.create_topics()
    code, lines = doctor(world.environment())
    assert code == 0, "\n".join(lines)
    assert {line.split(" ", 1)[0] for line in lines[:-1]} == {"ok"}
    assert lines[-1] == f"{len(lines) - 1} ok, 0 warnings, 0 faults"
    text = "\n".join(lines)
    for part in ("settings", "kafka", "redis", "postgres", "redis clock", "postgres clock"):
        assert f"ok       {part}: " in text
    assert f"ok       topic {world.raw}: 4 partitions, kept for 7d" in lines
    assert f"ok       transactions: transactional ids {world.group}.* may be used" in lines


def test_what_is_away_is_told_of_each(world: World) -> None:
    """All at once, without a traceback, and exit code 1."""
    code, lines = doctor({**world.environment(), **NOWHERE})
    assert code == 1
    bad = [line for line in lines if line.startswith("fault")]
    for part, variable in zip(("kafka", "redis", "postgres"), NOWHERE, strict=True):
        assert any(line.startswith(f"fault    {part}: ") and variable in line for line in bad)
    assert lines[-1].endswith("3 faults")


async def test_one_that_is_away_hides_nothing_of_the_others(world: World) -> None:
    """Kafka is looked at although Redis is gone."""
    await world.create_topics()
    (found,) = await faults(world, REDIS_URL=NOWHERE["REDIS_URL"])
    assert found.part == "redis"


def test_a_bad_setting_is_a_fault(world: World) -> None:
    """Nothing else can be looked at then."""
    code, lines = doctor({**world.environment(), "ALLOWED_LATENESS": "1"})
    assert code == 1
    assert lines[0].startswith("fault    settings: ALLOWED_LATENESS is '1'; allowed: ")


async def test_missing_topics_name_the_command_that_makes_them(world: World) -> None:
    """Each by its name."""
    found = await faults(world)
    assert [one.todo for one in found] == ["run `processor topics create`"] * 5
    assert [one.part for one in found][:2] == [f"topic {world.raw}", f"topic {world.merges}"]


async def test_topics_that_would_lose_messages_are_faults(world: World) -> None:
    """Retention, cleanup policy, size of letters, timestamps that outputs refuse."""
    await world.create_topics()
    await configure(world, world.raw, retention_ms="60000")
    await configure(world, world.merges, cleanup_policy="compact")
    await configure(world, world.dead, max_message_bytes="1048588")
    found = await faults(world)
    said = {one.part: one.said for one in found if one.level == "fault"}
    assert said.keys() == {f"topic {name}" for name in (world.raw, world.merges, world.dead)}
    assert "retention.ms is 1m" in said[f"topic {world.raw}"]
    assert "cleanup.policy is compact" in said[f"topic {world.merges}"]
    assert "less than twice" in said[f"topic {world.dead}"]


async def test_outputs_with_other_partitions_than_the_input_are_a_warning(world: World) -> None:
    """The exit code stays 0."""
    await create_topics(world.settings(ENRICHED_TOPIC=f"{world.id}.other"), 2)
    await create_topics(world.settings(RAW_TOPIC=f"{world.id}.another"), 3)
    (found,) = [one for one in await faults(world) if "enriched" in one.part]
    assert (found.level, found.said[:12]) == ("warning", "3 partitions")


async def test_an_offset_that_the_topic_no_longer_holds_names_its_command(world: World) -> None:
    """As the lane that stops there does."""
    await world.create_topics(1)
    await produce(world.kafka, world.raw, [Message(b"{}", b"k", 0) for _ in range(5)])
    source = TopicPartition(world.raw, 0)
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, transactional_id=world.id)
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await producer.start()
    await admin.start()
    async with producer.transaction():
        await producer.send_offsets_to_transaction({source: 1}, world.group)
    await producer.stop()
    await admin.delete_records({source: RecordsToDelete(3)})
    await admin.close()
    (found,) = [one for one in await faults(world) if one.level == "fault"]
    assert found.said == "it is at 1, the topic holds 3 to 5: its lane stops"
    assert f"--topic {world.raw} --partition 0 --to earliest" in found.todo


@contextmanager
def redis_set(url: str, name: str, value: str) -> Iterator[None]:
    """A setting of the server for as long as the block runs."""
    with redis.Redis.from_url(url) as client:
        before = client.config_get(name)[name]
        client.config_set(name, value)
        try:
            yield
        finally:
            client.config_set(name, before)


async def test_a_redis_that_may_evict_windows_is_a_fault(world: World) -> None:
    """The line has the command that mends it."""
    await world.create_topics()
    with redis_set(world.redis, "maxmemory-policy", "allkeys-lru"):
        code, lines = doctor(world.environment())
    assert code == 1
    (line,) = [line for line in lines if line.startswith("fault")]
    assert line.startswith("fault    redis eviction: ")
    assert line.endswith("run CONFIG SET maxmemory-policy noeviction")


async def test_a_redis_user_without_a_command_of_the_scripts_is_a_fault(world: World) -> None:
    """The line names the command; nothing is left behind by the probe."""
    await world.create_topics()
    name = f"u{secrets.token_hex(4)}"
    with redis.Redis.from_url(world.redis) as client:
        client.execute_command(
            "ACL", "SETUSER", name, "on", ">pw", "~*", "&*", "+@all", "-zremrangebyrank"
        )
        try:
            parts = urlsplit(world.redis)
            netloc = f"{name}:pw@{parts.netloc.rpartition('@')[2]}"
            url = urlunsplit(parts._replace(netloc=netloc))
            (found,) = await faults(world, REDIS_URL=url)
        finally:
            client.execute_command("ACL", "DELUSER", name)
        assert client.keys() == []
    assert found.part == "redis permissions"
    assert found.said.startswith("ZREMRANGEBYRANK: ")


async def test_an_old_schema_names_the_command_that_updates_it(
    world: World, empty_database: str
) -> None:
    """And nothing of it is looked at."""
    await world.create_topics()
    (found,) = await faults(world, DATABASE_URL=empty_database)
    assert (found.part, found.todo) == ("postgres schema", "run `processor migrate`")


async def test_a_postgres_user_that_sees_nothing_is_a_fault(world: World) -> None:
    """It may do everything with the tables, and row-level security hides every row."""
    await world.create_topics()
    name = f"u{secrets.token_hex(4)}"
    harness.execute(
        world.postgres,
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw' IN ROLE processor_api",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
    )
    parts = urlsplit(world.postgres)
    netloc = f"{name}:pw@{parts.netloc.rpartition('@')[2]}"
    try:
        url = urlunsplit(parts._replace(netloc=netloc))
        (hidden,) = await faults(world, DATABASE_URL=url)
        harness.execute(world.postgres, f"REVOKE DELETE ON events FROM {name}")
        (lacking,) = await faults(world, DATABASE_URL=url)
    finally:
        harness.execute(world.postgres, f"DROP OWNED BY {name}", f"DROP ROLE {name}")
    assert hidden.said == f"row-level security hides every event from {name}"
    assert lacking.said == f"{name} may not read and write events"
