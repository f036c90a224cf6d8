"""``processor api`` as a process: what it refuses at its start, and how it ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import asyncpg
import httpx
import pytest

from processor.api.server import serve
from processor.embedded.journal import free_port
from processor.failures import StartRefused
from processor.io import tokens
from processor.io.postgres import Postgres
from tests.api.client import http_client
from tests.api.rows import row, store
from tests.harness import Worker, World, http_get, until

pytestmark = pytest.mark.e2e
NOWHERE = "127.0.0.1:1"


async def refusal(environment: Mapping[str, str]) -> str:
    """The one line with which it refuses to start."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "processor", "api"],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "API_PORT": str(free_port()), **environment},
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


async def test_a_start_that_cannot_be_is_one_line_and_exit_code_2(world: World) -> None:
    """No Kafka, whose client would say it in several lines, and a port that is taken."""
    await world.create_topics(2)
    environment = world.environment()
    kafka = {**environment, "KAFKA_BOOTSTRAP_SERVERS": NOWHERE}
    assert "KAFKA_BOOTSTRAP_SERVERS" in await refusal(kafka)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = await refusal({**environment, "API_PORT": port})
    assert f"API_PORT {port}" in line
    assert "in use" in line


async def test_what_is_missing_refuses_the_start_with_what_to_do(
    world: World, empty_database: str
) -> None:
    """Topics, Postgres, the schema; the port is free again afterwards."""
    port = str(free_port())

    async def refused(**more: str) -> str:
        with pytest.raises(StartRefused) as refusal:
            await serve(world.settings(API_PORT=port, **more))
        assert len(str(refusal.value).splitlines()) == 1
        return str(refusal.value)

    assert "processor topics create" in await refused()
    await world.create_topics(2)
    nobody = f"postgresql://postgres@{NOWHERE}/postgres"
    assert "DATABASE_URL" in await refused(DATABASE_URL=nobody)
    assert "processor migrate" in await refused(DATABASE_URL=empty_database)
    with socket.create_server(("127.0.0.1", int(port))):
        assert f"API_PORT {port}" in await refused()


@dataclass
class Served:
    """A process that serves, and a client of it with a token of all scopes."""

    worker: Worker
    port: int
    token: str
    client: httpx.AsyncClient


@pytest.fixture
async def served(world: World, start_worker: Callable[..., Worker]) -> AsyncIterator[Served]:
    """``processor api`` on the test's world."""
    await world.create_topics(2)
    port = free_port()
    worker = start_worker({**world.environment(), "API_PORT": str(port)}, "api")

    async def serves() -> bool:
        assert worker.running, worker.output
        return (await http_get(port, "/readyz"))[0] == 200

    await until(serves, 40)
    owner = await Postgres.connect(world.postgres, size=1)
    wanted = tokens.Wanted("acme", "ann", tokens.SCOPES, None)
    token = await tokens.create(owner, wanted, "test")
    await owner.close()
    async with http_client(f"http://127.0.0.1:{port}", token) as client:
        yield Served(worker, port, token, client)


async def test_a_request_in_flight_is_answered_before_the_process_ends(
    world: World, served: Served
) -> None:
    """SIGTERM: nobody new is let in, whoever waits gets the answer, and the exit code is 0."""

    async def closed() -> bool:
        return (await http_get(served.port, "/healthz"))[0] == 0

    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
    async with asyncpg.create_pool(world.postgres, min_size=1, max_size=2) as pool:
        await store(pool, [row(1)])
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE events")
            waiting = asyncio.create_task(served.client.get("/events?lead_id=A"))
            await until(lambda: pool.fetchval(waits))
            served.worker.send(signal.SIGTERM)
            await until(closed, 4)
        answer = await waiting
    assert (answer.status_code, answer.json()["total"]) == (200, 1)
    assert await served.worker.ended() == 0
    output = served.worker.output
    assert "Traceback" not in output
    assert served.token.split("_", 2)[2] not in output
