"""What is made for a while on servers of others is gone again, at whatever moment its making is interrupted."""

import asyncio
import secrets
from urllib.parse import urlsplit

import pytest
import redis

from processor.embedded import Stack
from processor.io.kafka import Cluster, connected
from processor.io.sandbox import database_at, own_database, own_redis, own_topics, reading, redis_at
from tests import harness

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


MAKING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'CREATE DATABASE ' || $1"


async def test_a_database_is_gone_whenever_its_creation_is_interrupted(stack: Stack) -> None:
    """While the server makes it, when that is answered, and once it is there."""
    name = f"demo_{secrets.token_hex(4)}"

    async def make() -> None:
        async with own_database(stack.postgres, name):
            await asyncio.Event().wait()

    async with reading(stack.postgres) as connection:
        for seconds in (0, *(0.01 * 1.4**n for n in range(14))):
            making = asyncio.create_task(make())
            await harness.until(lambda: connection.fetchval(MAKING, name))
            await asyncio.wait([making], timeout=seconds)
            making.cancel()
            await asyncio.wait([making])
            assert making.cancelled()
            assert not await connection.fetch("SELECT FROM pg_database WHERE datname = $1", name)


async def test_topics_are_gone_when_their_creation_is_interrupted(
    stack: Stack, world: harness.World
) -> None:
    """The inputs are made before the outputs: here it is interrupted as soon as there is one of them."""

    async def make() -> None:
        async with own_topics(world.settings()):
            await asyncio.Event().wait()

    async with connected(Cluster(world.settings())) as admin:

        async def mine() -> list[str]:
            return [topic for topic in await admin.list_topics() if topic.startswith(world.id)]

        making = asyncio.create_task(make())
        await harness.until(mine)
        making.cancel()
        await asyncio.wait([making])

        async def none() -> bool:
            return not await mine()

        await harness.until(none)


def _keys(server: str) -> dict[int, int]:
    return {n: redis.Redis.from_url(redis_at(server, n)).dbsize() for n in range(16)}


# redis-py leaves a connection that it was cancelled in to the garbage collection
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_redis_is_empty_whenever_its_taking_is_interrupted(stack: Stack) -> None:
    """Nobody finds it taken."""
    before = _keys(stack.redis)

    async def make(end: asyncio.Event) -> None:
        async with own_redis(stack.redis):
            await end.wait()  # the driver may swallow the cancellation

    for milliseconds in range(30):
        end = asyncio.Event()
        making = asyncio.create_task(make(end))
        await asyncio.wait([making], timeout=milliseconds / 1000)
        making.cancel()
        end.set()
        await asyncio.wait([making])
        assert making.cancelled() or making.exception() is None
    assert _keys(stack.redis) == before


async def test_the_redis_of_somebody_else_is_left_as_it_is_however_its_url_names_it(
    stack: Stack,
) -> None:
    """A number in the query is no other place to look for keys."""
    server = urlsplit(stack.redis)._replace(path="", query="db=0").geturl()
    with redis.Redis.from_url(server) as theirs:
        theirs.set("precious", 1)
        async with own_redis(server) as url, redis.asyncio.from_url(url) as mine:
            await mine.set("mine", 1)
            assert not theirs.exists("mine")
        assert theirs.getdel("precious") == b"1"


async def test_a_database_is_found_by_a_url_without_a_host(stack: Stack) -> None:
    """As Postgres takes it for a socket: the host is in the query, and stays there."""
    parts = urlsplit(stack.postgres)
    query = (
        f"host={parts.hostname}&port={parts.port}&user={parts.username}&password={parts.password}"
    )
    async with own_database(f"postgresql:///postgres?{query}", "demo_socket") as url:
        assert url == database_at(f"postgresql:///postgres?{query}", "demo_socket")
        async with reading(url) as connection:
            assert await connection.fetchval("SELECT current_database()") == "demo_socket"
