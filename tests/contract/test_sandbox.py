"""What is made for a while on servers of others is gone again, at whatever moment its making is interrupted."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
import redis

from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io import sandbox
from processor.io.kafka import Cluster, connected
from processor.io.sandbox import database_at, own_database, own_redis, own_topics, reading, redis_at
from tests import harness

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is said to stay on servers: nothing."""
    told: list[str] = []
    yield told
    assert told == []


MAKING = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'CREATE DATABASE ' || $1)
    OR EXISTS (SELECT FROM pg_database WHERE datname = $1)
"""


async def test_a_database_is_gone_whenever_its_creation_is_interrupted(stack: Stack) -> None:
    """While the server makes it, when that is answered, and once it is there."""
    name, told = f"demo_{secrets.token_hex(4)}", list[str]()

    async def make() -> None:
        async with own_database(stack.postgres, name, told.append):
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
    assert told == []


WAITING = "SELECT now() - query_start > '1.2 s' FROM pg_stat_activity WHERE query LIKE 'DROP DATABASE % ' || $1 || '%'"


async def test_a_database_goes_also_where_its_server_is_busy_for_longer(stack: Stack) -> None:
    """A drop waits for a checkpoint; here for somebody who holds the database."""
    name, told = f"demo_{secrets.token_hex(4)}", list[str]()
    leaving = AsyncExitStack()
    await leaving.enter_async_context(own_database(stack.postgres, name, told.append))
    async with reading(stack.postgres) as holding, reading(stack.postgres) as looking:
        async with holding.transaction():
            await holding.execute(f"COMMENT ON DATABASE {name} IS 'held'")
            ending = asyncio.create_task(leaving.aclose())
            await harness.until(lambda: looking.fetchval(WAITING, name))
        await ending
        assert not await looking.fetch("SELECT FROM pg_database WHERE datname = $1", name)
    assert told == []


async def test_of_a_database_that_cannot_be_dropped_it_is_told(stack: Stack) -> None:
    """Also by which command it goes."""
    name, told = f"demo_{secrets.token_hex(4)}", list[str]()
    async with reading(stack.postgres) as connection:
        async with own_database(stack.postgres, name, told.append):
            await connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE true")
        (line,) = told
        assert line.startswith(
            f"the database {name} is still on its server (cannot drop a template"
        )
        await connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
        await connection.execute(line.rpartition(": run ")[2])
        assert not await connection.fetch("SELECT FROM pg_database WHERE datname = $1", name)


async def test_of_a_database_that_was_never_asked_for_nothing_is_told() -> None:
    """Its server is away: the refusal says so."""
    told = list[str]()
    with pytest.raises(StartRefused, match="cannot connect to Postgres"):
        async with own_database("postgresql://nobody@127.0.0.1:1/none", "demo_none", told.append):
            pass
    assert told == []


async def test_topics_are_gone_when_their_creation_is_interrupted(
    stack: Stack, world: harness.World, told: list[str]
) -> None:
    """The inputs are made before the outputs: here it is interrupted as soon as there is one of them."""

    async def make() -> None:
        async with own_topics(world.settings(), told.append):
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
async def test_a_redis_is_empty_whenever_its_taking_is_interrupted(
    stack: Stack, told: list[str]
) -> None:
    """Nobody finds it taken."""
    before = _keys(stack.redis)

    async def make(end: asyncio.Event) -> None:
        async with own_redis(stack.redis, told.append):
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
    stack: Stack, told: list[str]
) -> None:
    """A number in the query is no other place to look for keys."""
    server = urlsplit(stack.redis)._replace(path="", query="db=0").geturl()
    with redis.Redis.from_url(server) as theirs:
        theirs.set("precious", 1)
        async with own_redis(server, told.append) as url, redis.asyncio.from_url(url) as mine:
            await mine.set("mine", 1)
            assert not theirs.exists("mine")
        assert theirs.getdel("precious") == b"1"


async def test_what_others_write_into_the_redis_meanwhile_stays(
    stack: Stack, told: list[str]
) -> None:
    """A queue is empty at times: what a program of somebody else keeps there later is not ours to remove."""
    async with own_redis(stack.redis, told.append) as url, redis.asyncio.from_url(url) as mine:
        await mine.mset({"w1:{7}:g:f": 1, "w1:{8}": 2})
        await mine.rpush("jobs", 1)
    with redis.Redis.from_url(url) as theirs:
        assert theirs.keys() == [b"jobs"]
        theirs.flushdb()


async def test_keys_that_cannot_be_removed_in_time_are_told_of(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark stays with them: whoever comes next takes another logical database."""
    monkeypatch.setattr(sandbox, "_REMOVED_WITHIN_S", 0.2)
    stays: list[str] = []
    with redis.Redis.from_url(stack.redis) as admin:
        async with own_redis(stack.redis, stays.append) as url:
            admin.client_pause(60_000, all=False)
        admin.client_unpause()
    number = urlsplit(url).path.removeprefix("/")
    (sentence,) = stays
    assert f"database {number} " in sentence
    assert "delete `sandbox` and w1:*" in sentence
    with redis.Redis.from_url(url) as left:
        assert left.keys() == [b"sandbox"]
        left.flushdb()


async def test_a_redis_that_somebody_else_has_taken_meanwhile_is_theirs(
    stack: Stack, told: list[str]
) -> None:
    """Its mark is another: it was emptied, and taken by another demo."""
    async with own_redis(stack.redis, told.append) as url, redis.asyncio.from_url(url) as other:
        await other.flushdb()
        await other.mset({"sandbox": b"another", "w1:{7}": 1})
    with redis.Redis.from_url(url) as theirs:
        assert sorted(theirs.keys()) == [b"sandbox", b"w1:{7}"]
        theirs.flushdb()


async def test_a_database_is_found_by_a_url_without_a_host(stack: Stack) -> None:
    """As Postgres takes it for a socket: the host is in the query, and stays there."""
    parts, told = urlsplit(stack.postgres), list[str]()
    query = (
        f"host={parts.hostname}&port={parts.port}&user={parts.username}&password={parts.password}"
    )
    async with own_database(f"postgresql:///postgres?{query}", "demo_socket", told.append) as url:
        assert url == database_at(f"postgresql:///postgres?{query}", "demo_socket")
        async with reading(url) as connection:
            assert await connection.fetchval("SELECT current_database()") == "demo_socket"
