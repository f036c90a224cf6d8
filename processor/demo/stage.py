"""What the demo works on: a database, an empty Redis and topics of its own, the sample filters in force, a worker and an API.

Each part begins as soon as the server it needs is up.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from processor.demo import steps
from processor.demo.servers import Servers
from processor.demo.service import Service
from processor.demo.steps import Steps
from processor.embedded.journal import free_port, is_free
from processor.io import filter_file
from processor.io.filters import apply
from processor.io.kafka_topics import create_topics
from processor.io.migrate import migrate
from processor.io.postgres import Postgres
from processor.io.sandbox import Stays, own_database, own_redis, own_topics
from processor.settings import Settings

FILTERS = Path(__file__).with_name("filters.yaml")
TOPICS = {
    "RAW_TOPIC": "events.raw",
    "MERGE_TOPIC": "leads.merges",
    "ENRICHED_TOPIC": "events.enriched",
    "DEAD_TOPIC": "events.dead",
    "ENGAGEMENT_TOPIC": "leads.engagement",
    "CONSUMER_GROUP": "processor",
}
DEFAULT_PORT = 8080
Environment: TypeAlias = Mapping[str, str]
OpenDatabase: TypeAlias = Callable[[str], AbstractAsyncContextManager[str]]
"""On a server."""


@dataclass(frozen=True)
class Stage:
    """What the play needs; `environment` brings any `processor` command here."""

    settings: Settings
    environment: Environment
    worker: Service
    api: Service


@asynccontextmanager
async def set_up(servers: Servers, progress: Steps, stays: Stays) -> AsyncIterator[Stage]:
    """A worker and an API that are ready; raises `StartRefused`.  Servers of others are left as they were found; `stays` is told where not."""
    name = f"demo_{secrets.token_hex(4)}"
    database = partial(own_database, name=name, stays=stays)
    progress.waiting(steps.KAFKA, steps.REDIS, steps.POSTGRES)
    async with AsyncExitStack() as leaving:
        async with asyncio.TaskGroup() as scope:
            kafka = scope.create_task(_kafka(servers, progress, leaving, name, stays))
            redis = scope.create_task(_redis(servers, progress, leaving, stays))
            postgres = scope.create_task(_postgres(servers, progress, leaving, database))
        own = {**kafka.result(), **redis.result(), **postgres.result()}
        environment = {**os.environ, **own}
        worker = Service("worker", environment, servers.folder / "worker.log", "METRICS_PORT")
        api = Service("api", _free_port(environment), servers.folder / "api.log", "API_PORT")
        leaving.push_async_callback(_stopped, worker, api)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(_started(worker, steps.WORKER, progress))
            scope.create_task(_started(api, steps.API, progress))
        yield Stage(_settings(own), own, worker, api)


async def _started(service: Service, step: str, progress: Steps) -> None:
    with progress.step(step):
        await service.start()


async def _stopped(*services: Service) -> None:
    async with asyncio.TaskGroup() as scope:
        for service in services:
            scope.create_task(service.stop(1.0))


def _free_port(environment: Environment) -> Environment:
    """With the port of the API that is set, or else the usual one where it is free."""
    port = DEFAULT_PORT if is_free(DEFAULT_PORT) else free_port()
    return {**environment, "API_PORT": environment.get("API_PORT") or str(port)}


def _settings(own: Environment) -> Settings:
    """Those of the environment, with what is our own."""
    return Settings.model_validate({k: v for k, v in {**os.environ, **own}.items() if v})


async def _kafka(
    servers: Servers, progress: Steps, leaving: AsyncExitStack, name: str, stays: Stays
) -> Environment:
    url = await servers.url("kafka")
    progress.done(steps.KAFKA, servers.took["kafka"])
    prefix = f"{name}." if servers.named("kafka") else ""
    own = {"KAFKA_BOOTSTRAP_SERVERS": url, **{k: prefix + v for k, v in TOPICS.items()}}
    with progress.step(steps.TOPICS):
        if servers.named("kafka"):
            await leaving.enter_async_context(own_topics(_settings(own), stays))
        else:
            await create_topics(_settings(own))
    return own


async def _redis(
    servers: Servers, progress: Steps, leaving: AsyncExitStack, stays: Stays
) -> Environment:
    url = await servers.url("redis")
    progress.done(steps.REDIS, servers.took["redis"])
    if servers.named("redis"):
        url = await leaving.enter_async_context(own_redis(url, stays))
    return {"REDIS_URL": url}


async def _postgres(
    servers: Servers, progress: Steps, leaving: AsyncExitStack, database: OpenDatabase
) -> Environment:
    url = await servers.url("postgres")
    progress.done(steps.POSTGRES, servers.took["postgres"])
    with progress.step(steps.SCHEMA):
        if servers.named("postgres"):
            url = await leaving.enter_async_context(database(url))
        await migrate(url)
    with progress.step(steps.FILTERS):
        await _apply_filters(url)
    return {"DATABASE_URL": url}


async def _apply_filters(url: str) -> None:
    postgres = await Postgres.connect(url, size=1)
    try:
        await apply(postgres, filter_file.read(FILTERS), "demo")
    finally:
        await postgres.close()
