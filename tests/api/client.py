"""The API as its users have it: served on a port of its own, asked by a real HTTP client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import pytest
import uvicorn

from processor.api.server import configured
from processor.api.services import Services, connected
from processor.embedded.journal import free_port
from processor.io import tokens
from processor.io.clock import now_ms
from processor.io.postgres import Postgres
from tests import harness
from tests.harness_waiting import until

__all__ = ["Api", "api"]
ORG = "acme"


@dataclass
class Now:
    """The API's clock: the real one, unless a test sets it."""

    at: int | None = None

    def __call__(self) -> int:
        return now_ms() if self.at is None else self.at


@dataclass
class Api:
    """A running API on a fresh world; `client` bears a token of all scopes of `ORG`."""

    world: harness.World
    services: Services
    url: str
    now: Now
    owner: Postgres
    """As who owns the tables: it sees everything."""
    database: asyncpg.Pool
    """The same, for whatever a test wants to look at."""
    client: httpx.AsyncClient
    _more: list[httpx.AsyncClient] = field(default_factory=list)

    async def token(
        self,
        org_unit: str = ORG,
        scopes: Sequence[str] = tokens.SCOPES,
        lasts_ms: int | None = None,
        name: str = "ann",
    ) -> str:
        """A new token."""
        wanted = tokens.Wanted(org_unit, name, scopes, lasts_ms)
        return await tokens.create(self.owner, wanted, "test")

    async def as_org_unit(self, org_unit: str, **more: Any) -> httpx.AsyncClient:
        """A client with a new token of another org unit (or of other scopes)."""
        return self.bearing(await self.token(org_unit, **more))

    def bearing(self, token: str | None) -> httpx.AsyncClient:
        """A client that shows this token, or none."""
        client = http_client(self.url, token)
        self._more.append(client)
        return client

    async def close(self) -> None:
        """Closes every client."""
        for client in [self.client, *self._more]:
            await client.aclose()


def http_client(url: str, token: str | None) -> httpx.AsyncClient:
    """A client that shows this token, or none."""
    headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False)


@pytest.fixture
async def api(world: harness.World) -> AsyncIterator[Api]:
    """An API of one process on the test's world, with its topics."""
    await world.create_topics(2)
    async with running(world) as found:
        yield found


@asynccontextmanager
async def running(world: harness.World, **more: str) -> AsyncIterator[Api]:
    """An API on a world whose topics exist; `more` are further settings.  Several may run on one world."""
    now, port = Now(), free_port()
    owner = await Postgres.connect(world.postgres, size=2)
    async with (
        connected(world.settings(**more), now) as services,
        asyncpg.create_pool(world.postgres, min_size=1, max_size=3) as pool,
    ):
        url = f"http://127.0.0.1:{port}"
        found = Api(world, services, url, now, owner, pool, http_client(url, None))
        found.client = http_client(url, await found.token())
        try:
            async with serving(services, port):
                yield found
        finally:
            await found.close()
            await owner.close()


@asynccontextmanager
async def serving(services: Services, port: int) -> AsyncIterator[None]:
    """The application on a port of loopback."""
    server = uvicorn.Server(configured(services, port=port))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    try:
        await until(lambda: server.started, 10)
        yield
    finally:
        services.stopping.set()
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await task
