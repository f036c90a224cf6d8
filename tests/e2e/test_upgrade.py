"""Upgrades without downtime: the released program and this one on one database, one group and one Redis.

The released program is the commit that CHANGELOG.md names, taken from the history.
"""

import io
import re
import subprocess
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from processor.embedded import Stack
from tests import harness
from tests.traffic import Record, Shape, stream
from tests.traffic_filters import FIRST, LATER
from tests.verdict_run import Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
StartWorker = Callable[..., harness.Worker]
ROOT = Path(__file__).parents[2]


def released_commit() -> str:
    """Of the newest version in the changelog."""
    found = re.search(r"The code of this version is commit ([0-9a-f]{7,40})\.", _changelog())
    assert found, "CHANGELOG.md names no commit of its newest version"
    return found[1]


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code of the released program."""
    archive = subprocess.run(
        ["git", "archive", released_commit(), "processor", "schemas"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    said = archive.stderr.decode()
    assert archive.returncode == 0, f"{said}the history is not here: run git fetch --unshallow"
    folder = tmp_path_factory.mktemp("released")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as code:
        code.extractall(folder, filter="data")
    return folder


@pytest.fixture
def fresh(stack: Stack, empty_database: str, redis_url: str) -> harness.World:
    """A world whose database has no schema yet."""
    return harness.World(stack.kafka, redis_url, empty_database, f"up{time.time_ns():x}")


def quarters() -> list[list[Record]]:
    """An adversarial stream in four parts."""
    made = stream(Shape(21, time.time_ns() // 1_000_000 - 300_000, 2_400))
    middles = [len(half) // 2 for half in made.halves]
    return [
        list(part)
        for half, middle in zip(made.halves, middles, strict=True)
        for part in (half[:middle], half[middle:])
    ]


async def test_workers_are_upgraded_one_after_the_other_under_load(
    fresh: harness.World, released: Path, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The old program works on the new schema, beside the new one; this one goes on where it left off: rows, windows, offsets."""
    environment, parts = fresh.environment(), quarters()
    old = partial(start_worker, program=released)
    harness.processor(environment, "migrate", program=released)
    await fresh.create_topics(4)
    run = Run(fresh, tmp_path, program=released)
    await run.apply(FIRST)
    await run.work(old, 2)
    await run.send(parts[0])
    await run.settled()
    harness.processor(environment, "migrate")
    await run.send(parts[1])
    await run.settled()
    leaving = run.workers.pop()
    await run.send(parts[2])
    assert await leaving.stop() == 0
    run.workers.append(start_worker(environment))
    await run.workers[-1].ready(60)
    run.program = None
    await run.settled()
    await run.apply(LATER)
    assert await run.workers.pop(0).stop() == 0
    await run.send(parts[3])
    await run.settled()
    await run.check()


async def test_the_released_api_serves_beside_this_one(
    world: harness.World, released: Path, start_worker: StartWorker
) -> None:
    """On the new schema: one accepts an event that a new worker stores, both list it, either may delete it."""
    await world.create_topics(2)
    token = harness.processor(
        world.environment(), "tokens", "create", "--org-unit", "acme", "--name", "up",
        program=released,
    ).split()[-1]  # fmt: skip
    worker = start_worker(world.environment())
    ports = [harness.free_port(), harness.free_port()]
    for port, program in zip(ports, (released, None), strict=True):
        more = {"API_PORT": str(port)}
        start_worker({**world.environment(), **more}, "api", program=program)
    await worker.ready(60)
    async with (
        _client(ports[0], token) as before,
        _client(ports[1], token) as now,
    ):
        for client in (before, now):
            await harness.until(partial(_serves, client), 60)
        event = {"id": "one", "lead_id": "l", "event_type": "page_view", "metadata": {"k": [1]}}
        assert (await before.post("/ingest", json=event)).json() == {"ids": ["one"]}
        await harness.until(partial(_lists, before, 1), 30)
        assert (await before.get("/events")).json() == (await now.get("/events")).json()
        gone = await before.request("DELETE", "/events/batch", json={"event_ids": ["one"]})
        assert gone.json() == {"deleted": 1}
        assert await _lists(now, 0)


def _client(port: int, token: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)


async def _serves(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def _lists(client: httpx.AsyncClient, events: int) -> bool:
    return int((await client.get("/events")).json()["total"]) == events
