"""``POST /ingest`` while Kafka is frozen, killed and started again, and when the API itself dies: on a broker of its own."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from processor.embedded import Stack
from processor.embedded.journal import free_port
from tests.api.client import Api, http_client, running
from tests.harness import Worker, World, http_get, read_topic, until

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(150)]

VIEW: dict[str, Any] = {"lead_id": "ld_1", "event_type": "page_view"}
BOUND_S = 13
"""Some ten seconds, on a machine that is busy."""
Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def broker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka alone; the other servers are those of the session."""
    given = {"REDIS_URL": stack.redis, "DATABASE_URL": stack.postgres}
    with Stack(tmp_path_factory.mktemp("broker"), given) as own:
        yield own


@pytest.fixture
async def api(world: World, broker: Stack) -> AsyncIterator[Api]:
    """An API on that broker."""
    own = replace(world, kafka=broker.kafka)
    await own.create_topics(2)
    async with running(own) as found:
        yield found


async def sent(client: Any, body: Any, **headers: str) -> Any:
    """The answer to a body."""
    return await client.post("/ingest", json=body, headers=headers)


async def published(api: Api) -> list[tuple[str, int]]:
    """Id and timestamp of every record of the raw topic."""
    records = await read_topic(api.world.kafka, api.world.raw)
    return [(json.loads(record.value or b"")["id"], record.timestamp) for record in records]


async def answer_in_time(api: Api, **headers: str) -> Any:
    """The answer, which takes no longer than it may."""
    async with asyncio.timeout(BOUND_S):
        return await sent(api.client, VIEW, **headers)


async def refusals(api: Api) -> None:
    """Requests with and without a key, some under one key, all answered in time, with 503; other routes go on."""
    same = {"Idempotency-Key": "same"}
    headers: list[dict[str, str]] = [{}, {}, {"Idempotency-Key": "own"}, same, same]
    async with asyncio.TaskGroup() as scope:
        tasks = [scope.create_task(answer_in_time(api, **more)) for more in headers]
        assert (await api.client.get("/events")).status_code == 200
    for answer in (task.result() for task in tasks):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def test_while_kafka_is_frozen_requests_are_told_to_come_back(
    api: Api, broker: Stack
) -> None:
    """In bounded time, again and again; afterwards the API recovers by itself, and keys have kept their ids."""
    accepted = (await sent(api.client, VIEW)).json()["ids"]
    broker.kill("kafka", signal.SIGSTOP)
    try:
        await refusals(api)
        claimed = await api.database.fetchval("SELECT ids FROM idempotency_keys WHERE key = 'own'")
        assert (await answer_in_time(api)).status_code == 503
    finally:
        broker.kill("kafka", signal.SIGCONT)

    async def again() -> Any:
        answer = await answer_in_time(api, **{"Idempotency-Key": "own"})
        return answer if answer.status_code == 202 else None

    answer = await until(again, 30)
    assert answer.json()["ids"] == claimed
    assert (await again()).json()["ids"] == claimed
    assert {*accepted, *claimed} <= {event_id for event_id, _ in await published(api)}


class Load:
    """Producers that go on whatever they are answered, until they are ended; every second one sends keys."""

    def __init__(self, api: Api) -> None:
        self.accepted: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.ended = asyncio.Event()
        self._client = api.client

    async def run(self, name: int) -> None:
        """One of them."""
        n = 0
        while not self.ended.is_set():
            n += 1
            body = [VIEW | {"id": f"{name}-{n}-{part}"} for part in range(3)]
            more = {"Idempotency-Key": f"{name}-{n}"} if name % 2 else {}
            answer = await sent(self._client, body, **more)
            self.statuses[answer.status_code] += 1
            self.accepted.extend(answer.json().get("ids", ()))


async def test_what_was_accepted_while_kafka_died_and_came_back_is_stored_once(
    api: Api, broker: Stack, start_worker: Start
) -> None:
    """Every id that was answered with 202; what was answered with 503 may be there, too."""
    load = Load(api)
    async with asyncio.TaskGroup() as scope:
        for name in range(6):
            scope.create_task(load.run(name))
        await until(lambda: load.statuses[202] > 30, 30)
        broker.kill("kafka")
        await until(lambda: load.statuses[503] >= 6, 40)
        await asyncio.to_thread(broker.start_one, "kafka")
        before = load.statuses[202]
        await until(lambda: load.statuses[202] > before + 30, 40)
        load.ended.set()
    assert set(load.statuses) == {202, 503}
    await start_worker(api.world.environment()).ready(40)
    accepted = set(load.accepted)

    async def enriched() -> list[str]:
        records = await read_topic(api.world.kafka, api.world.enriched)
        found = [json.loads(record.value or b"")["id"] for record in records]
        return found if accepted <= set(found) else []

    assert max(Counter(await until(enriched, 60)).values()) == 1
    rows = await api.database.fetch("SELECT id FROM events")
    assert accepted <= {row["id"] for row in rows}


async def test_an_api_that_dies_before_it_has_noted_what_it_published_is_replaced(
    api: Api, broker: Stack, start_worker: Start
) -> None:
    """Another process publishes again, the very same record, soon after."""
    port = free_port()
    process = start_worker({**api.world.environment(), "API_PORT": str(port)}, "api")

    async def ready() -> bool:
        return (await http_get(port, "/readyz"))[0] == 200

    await until(ready, 40)
    token = api.client.headers["Authorization"].split()[1]
    key = {"Idempotency-Key": "k"}
    async with http_client(f"http://127.0.0.1:{port}", token) as client:
        broker.kill("kafka", signal.SIGSTOP)
        asking = asyncio.create_task(sent(client, VIEW, **key))
        claimed = "SELECT ids FROM idempotency_keys"
        ids = await until(lambda: api.database.fetchval(claimed))
        async with api.database.acquire() as connection, connection.transaction():
            await connection.execute(f"{claimed} FOR UPDATE")  # it cannot note that it is done
            broker.kill("kafka", signal.SIGCONT)
            first = await until(lambda: published(api), 20)
            process.kill()
        await asyncio.wait([asking])
        assert asking.exception() is not None
    answer = await answer_in_time(api, **key)
    assert (answer.status_code, answer.json()["ids"]) == (202, ids)
    assert await published(api) == first * 2
    assert [event_id for event_id, _ in first] == ids
