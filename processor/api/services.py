"""What handlers work with, put together once: `app.state.services`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from processor.api.auth import Tokens
from processor.api.stream_hub import Hub, running
from processor.api.turns import Turns
from processor.io.clock import Clock, now_ms
from processor.io.kafka import Cluster, at_start
from processor.io.kafka_topics import require_topics
from processor.io.migrate import check
from processor.io.postgres import API_ROLE, Postgres
from processor.io.producing import Producing
from processor.settings import Settings

POOL_SIZE = 10
_SESSION = {"role": API_ROLE, "statement_timeout": "10s"}


@dataclass(frozen=True)
class Services:
    """The outside world of the API."""

    settings: Settings
    clock: Clock
    postgres: Postgres
    """As the API's role: row-level security holds."""
    tokens: Tokens
    producing: Producing
    hub: Hub
    """The clients of the live stream."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is asked to end: streams end then."""
    previews: Turns = field(default_factory=Turns)


@asynccontextmanager
async def connected(settings: Settings, clock: Clock = now_ms) -> AsyncIterator[Services]:
    """Everything connected and checked; raises `StartRefused`."""
    cluster = Cluster(settings)
    async with at_start(cluster) as admin:
        await require_topics(
            admin, [settings.raw_topic, settings.merge_topic, settings.enriched_topic]
        )
    producing = Producing(cluster)
    postgres = await Postgres.connect(settings.database_url.get_secret_value(), POOL_SIZE, _SESSION)
    try:
        await check(postgres)
        tokens, stopping = Tokens(postgres, clock), asyncio.Event()
        async with running(cluster, tokens, stopping) as hub:
            yield Services(settings, clock, postgres, tokens, producing, hub, stopping)
    finally:
        await producing.close()
        await postgres.close()


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Serving: TypeAlias = Annotated[Services, Depends(_services)]
