"""``make load``: how long ``GET /events`` takes with millions of events in one org unit while a worker ingests.

Starts servers, fills the table by SQL (once spread over 90 days, once all within an hour), starts a worker, an API and a producer of
500 events a second (``--rate``), asks for every kind of page, and then for previews of a million events.  Prints tables, writes JSON,
and fails where a kind's 99th percentile or a preview is over its limit, or the worker did not keep up meanwhile.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
from aiokafka import AIOKafkaProducer
from msgspec import Struct, to_builtins

from processor.embedded import Stack
from processor.embedded.journal import free_port
from processor.io.migrate import migrate
from processor.io.postgres import Postgres
from processor.io.tokens import SCOPES, Wanted, create
from tests import harness
from tests.harness_waiting import until
from tests.load.fill import fill, settle
from tests.load.previews import Previewed, previews
from tests.load.requests import KINDS, timed

ORG = "acme"
SHAPES = {"spread over 90 days": 90 * 86_400_000, "all within an hour": 3_600_000}
PREVIEWED, PREVIEW_LIMIT_S = 1_000_000, 30.0
TICK_S = 0.01
KEEPS_UP = 0.95
"""Of what is asked to come in."""
WARM_UP = 20
"""Requests of each kind that are not measured."""


def main() -> int:
    """The exit code: 1 where a percentile is over the limit."""
    parser = argparse.ArgumentParser(prog="make load ARGS=...", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--requests", type=int, default=300, help="of each kind")
    parser.add_argument("--rate", type=int, default=500, help="events a second coming in")
    parser.add_argument("--limit-ms", type=float, default=50.0, help="of each kind's p99")
    parser.add_argument("--json", type=Path, default=Path(".cache/load.json"))
    asked = parser.parse_args()
    results = {}
    for shape, span_ms in SHAPES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with Stack.under_load(folder / "stack") as stack:
                results[shape] = asyncio.run(_measured(stack, folder, asked, span_ms))
        _show(shape, results[shape], asked)
    asked.json.parent.mkdir(exist_ok=True)
    told = {
        "machine": _machine(),
        "events": asked.events,
        "rate": asked.rate,
        "limit_ms": asked.limit_ms,
    }
    shapes = {shape: to_builtins(result) for shape, result in results.items()}
    asked.json.write_text(json.dumps({**told, "shapes": shapes}, indent=2) + "\n")
    return int(not all(result.within(asked) for result in results.values()))


class Result(Struct, frozen=True):
    """What was measured of one shape."""

    milliseconds: Mapping[str, Mapping[str, float]]
    """Of listings, by kind and of all kinds together."""
    taken_in: float
    """Events a second, by the worker while listings were asked for."""
    previews: Mapping[str, Previewed]

    def within(self, asked: argparse.Namespace) -> bool:
        """Whether every kind is, previews are within theirs, and the worker kept up."""
        listings = all(kind["p99"] <= asked.limit_ms for kind in self.milliseconds.values())
        kept_up = self.taken_in >= KEEPS_UP * asked.rate
        return (
            listings
            and kept_up
            and all(one.seconds <= PREVIEW_LIMIT_S for one in self.previews.values())
        )


async def _measured(stack: Stack, folder: Path, asked: argparse.Namespace, span_ms: int) -> Result:
    world = harness.World(stack.kafka, stack.redis, stack.postgres, "load")
    await migrate(world.postgres)
    await world.create_topics(4)
    database = await asyncpg.connect(world.postgres)
    first_ms = time.time_ns() // 1_000_000 - span_ms
    async for done in fill(database, ORG, asked.events, first_ms, span_ms):
        print(f"\r{done:,} events stored", end="", file=sys.stderr)
    await settle(database)
    await database.close()
    async with _running(world, folder, asked.rate) as (worker, client):
        for kind in KINDS:  # plans are made, and the large lead is noticed
            await _kind(client, kind, WARM_UP, asked.events)
        began, before = time.monotonic(), await _taken_in(worker)
        took = {k: await _kind(client, k, asked.requests, asked.events) for k in KINDS}
        taken_in = (await _taken_in(worker) - before) / (time.monotonic() - began)
        share = min(1.0, PREVIEWED / asked.events)
        previewed = await previews(client, worker, first_ms, span_ms, share)
        took["all of them"] = [one for kind in took.values() for one in kind]
        listings = {kind: _percentiles(own) for kind, own in took.items()}
        return Result(listings, taken_in, previewed)


async def _taken_in(worker: harness.Worker) -> float:
    """Events, so far."""
    return (await worker.metrics())["processor_batch_events_sum"]


async def _kind(client: httpx.AsyncClient, kind: str, requests: int, events: int) -> list[float]:
    """Milliseconds of each request."""
    chance = random.Random(kind)
    took = [await timed(client, KINDS[kind](chance, events)) for _ in range(requests)]
    print(f"\r{kind:<40}", end="", file=sys.stderr)
    return took


def _percentiles(took: Sequence[float]) -> Mapping[str, float]:
    by_size = sorted(took)
    middle, high = len(took) // 2, int(len(took) * 0.99)
    return {"p50": by_size[middle], "p99": by_size[high], "max": by_size[-1]}


@asynccontextmanager
async def _running(
    world: harness.World, folder: Path, rate: int
) -> AsyncIterator[tuple[harness.Worker, httpx.AsyncClient]]:
    """A worker under load and an API; the worker, and a client of the API."""
    port = free_port()
    environment = {**world.environment(), "API_PORT": str(port)}
    worker = harness.Worker(environment, folder / "worker.log")
    api = harness.Worker(environment, folder / "api.log", ("api",))
    url = f"http://127.0.0.1:{port}"
    try:
        worker.start()
        api.start()
        await worker.ready(60)
        await until(lambda: _answers(port, api), 60)
        headers = {"Authorization": f"Bearer {await _token(world)}"}
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, timeout=150) as client,
            _ingesting(world, rate),
        ):
            yield worker, client
    finally:
        worker.kill()
        api.kill()


async def _answers(port: int, api: harness.Worker) -> bool:
    assert api.running, api.output
    return (await harness.http_get(port, "/healthz"))[0] == 200


async def _token(world: harness.World) -> str:
    postgres = await Postgres.connect(world.postgres, size=1)
    try:
        return await create(postgres, Wanted(ORG, "load", SCOPES, None), "load")
    finally:
        await postgres.close()


@asynccontextmanager
async def _ingesting(world: harness.World, rate: int) -> AsyncIterator[None]:
    """So many events a second meanwhile; a failure of the producer, or of one event, ends the run."""
    async with (
        AIOKafkaProducer(bootstrap_servers=world.kafka, linger_ms=5) as producer,
        asyncio.TaskGroup() as scope,
    ):
        load = scope.create_task(_ingest(producer, world.raw, rate))
        yield
        load.cancel()


async def _ingest(producer: AIOKafkaProducer, topic: str, rate: int) -> None:
    clock, sent = asyncio.get_running_loop().time, 0
    under_way: deque[asyncio.Future[object]] = deque()
    began = clock()
    while True:
        for number in range(sent, int((clock() - began) * rate)):
            value, key = _event(number)
            under_way.append(await producer.send(topic, value, key))
            sent = number + 1
        while under_way and under_way[0].done():
            under_way.popleft().result()
        await asyncio.sleep(TICK_S)


def _event(number: int) -> tuple[bytes, bytes]:
    lead = "hot" if number % 50 == 0 else f"ld_{number % 200_000}"
    event = {"org_unit": ORG, "lead_id": lead, "event_type": "page_view"}
    return json.dumps(event).encode(), lead.encode()


def _show(shape: str, result: Result, asked: argparse.Namespace) -> None:
    coming = f"{asked.rate:,} events/s coming in, {result.taken_in:,.0f} taken in"
    print(f"\r{asked.events:,} events {shape}, {coming}, {_machine()}")
    print(f"{'GET /events':<32}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for kind, took in result.milliseconds.items():
        print(f"{kind:<32}{took['p50']:>9.1f}{took['p99']:>9.1f}{took['max']:>9.1f}")
    print(f"{'preview':<12}{'events':>12}{'seconds':>9}{'most lag, records':>20}")
    for kind, one in result.previews.items():
        print(f"{kind:<12}{one.events:>12,}{one.seconds:>9.1f}{one.lag:>20.0f}")


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
