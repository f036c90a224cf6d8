"""Every service does its work with the rights that the runbook gives it."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io.kafka import Cluster, connected
from processor.io.kafka_topics import create_topics
from processor.pure.letters import dead_letter
from processor.pure.types import Rejected
from tests import harness
from tests.harness_secured import (
    ADMIN,
    as_user,
    command_of,
    grant,
    rights,
    secured_kafka,
    settings,
    user_of,
)
from tests.unit.merge_records import NoRecord

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
StartWorker = Callable[..., harness.Worker]

VELOCITY = {
    "name": "n",
    "event_type": "page_view",
    "threshold": 1,
    "window_ms": 1000,
    "keep_first": True,
}


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[str]:
    """A Kafka with the users and rights of the runbook, and the topics under their default names, made by the operator."""
    wanted = rights()
    with secured_kafka(tmp_path, {right.user for right in wanted}) as url:
        async with connected(Cluster(settings(url, ADMIN))) as admin:
            await grant(admin, wanted)
        await create_topics(settings(url, "operator"), 2)
        yield url


@pytest.fixture
def redis_user(redis_url: str) -> Iterator[str]:
    """The URL of the worker's user."""
    with redis.Redis.from_url(redis_url) as server:
        server.execute_command(*command_of("ACL SETUSER worker").split())
        yield user_of(redis_url, "worker")
        server.acl_deluser("worker")


@pytest.fixture
def postgres_user(stack: Stack, database: str) -> Iterator[str]:
    """The URL of the API's user."""
    harness.execute(stack.postgres, command_of("CREATE ROLE api"))
    yield user_of(database, "api")
    harness.execute(stack.postgres, "DROP ROLE api")


async def test_every_service_needs_no_more_than_the_runbook_says(
    kafka: str, redis_user: str, database: str, postgres_user: str, start_worker: StartWorker
) -> None:
    """An event by HTTP, its verdict with a window, a dead letter, a merge by HTTP, the listing, a score and its message."""
    token = token_of(database)
    worker = start_worker(
        {**as_user(kafka, "worker"), "DATABASE_URL": database, "REDIS_URL": redis_user}
    )
    port = harness.free_port()
    start_worker(
        {**as_user(kafka, "api"), "DATABASE_URL": postgres_user, "API_PORT": str(port)}, "api"
    )
    engagement = start_worker(
        {**as_user(kafka, "engagement"), "DATABASE_URL": database}, "engagement"
    )
    await worker.ready(60)
    await engagement.ready(60)
    await send(kafka, b"no event")
    async with client_of(port, token) as client:
        await harness.until(lambda: serves(client), 60)
        made = await client.post("/velocity-filters", json=VELOCITY)
        assert made.status_code == 201, made.text
        event = {"lead_id": "a", "event_type": "page_view", "timestamp": "2025-01-15T10:30:00Z"}
        assert (await client.post("/ingest", json=[event] * 3)).status_code == 202
        merge = {"targetLeadId": "b", "sourceLeadIds": ["a"]}

        async def listed(events: int) -> bool:
            return int((await client.get("/events?lead_id=a")).json()["total"]) == events

        await harness.until(lambda: listed(3), 30)
        assert (await client.post("/leads/merge", json=merge)).status_code == 202
        await harness.until(lambda: listed(4), 30)
        found = (await client.get("/events?suppression_reason=any")).json()
        await harness.until(lambda: counted(client, engagement), 30)
    assert [one["suppression_reason"] for one in found["events"]] == ["inorganic_grouped"]
    assert (await worker.metrics())['processor_dead_letters_total{stage="parse"}'] == 1
    assert await worker.stop() == 0


async def test_the_operator_needs_no_more_than_the_runbook_says(
    kafka: str, redis_user: str, database: str
) -> None:
    """The doctor finds no fault; letters are listed and replayed, a lane is put elsewhere, and old events go."""
    record = NoRecord("events.raw", timestamp=time.time_ns() // 1_000_000, value=b"no event")
    refused = Rejected(record, "parse", "bad", "It is bad.")
    await send(kafka, dead_letter(refused, 1_000_000), "events.dead")
    operator = {**as_user(kafka, "operator"), "DATABASE_URL": database, "REDIS_URL": redis_user}

    def said(*command: str) -> str:
        return harness.processor(operator, *command).splitlines()[-1]

    assert said("doctor").endswith(" 0 faults")
    assert said("replay", "--list") == "1 letters to replay, 0 not chosen"
    assert said("replay", "--yes") == "1 letters replayed, 0 not chosen"
    reset = ("offsets", "reset", "--topic", "events.raw", "--partition", "0", "--to", "earliest")
    assert said(*reset) == "events.raw/0: the group goes on at 0"
    assert said("purge", "--older-than", "30d").startswith("0 events from before ")


async def test_a_user_who_may_not_see_a_topics_configuration_is_told_the_right(kafka: str) -> None:
    """Not to look at the address: that the cluster answers is how it is known."""
    acl = "add the ACL: --operation DESCRIBE_CONFIGS --topic events.raw"
    with pytest.raises(StartRefused, match=rf"^cannot use Kafka: .* of events\.raw: .*; {acl}$"):
        await create_topics(settings(kafka, "worker"), 2)


def token_of(database: str) -> str:
    """Of all scopes."""
    asked = ("tokens", "create", "--org-unit", "acme", "--name", "t")
    return harness.processor({"DATABASE_URL": database}, *asked).split()[-1]


def client_of(port: int, token: str) -> httpx.AsyncClient:
    """Of the API."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers)


async def send(kafka: str, value: bytes, topic: str = "events.raw") -> None:
    """As a producer that may."""
    producer = Cluster(settings(kafka, ADMIN)).producer(16_384, None)
    await producer.start()
    await producer.send_and_wait(topic, value)
    await producer.stop()


async def counted(client: httpx.AsyncClient, engagement: harness.Worker) -> bool:
    """Whether the survivor has a score, and something was told."""
    leads = (await client.get("/leads")).json()["leads"]
    told = (await engagement.metrics())["processor_engagement_told_total"]
    return [lead["lead_id"] for lead in leads] == ["b"] and told > 0


async def serves(client: httpx.AsyncClient) -> bool:
    """Whether it answers that it is ready."""
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
