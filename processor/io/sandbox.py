"""A database, an empty Redis and topics of one's own on servers that others use too: made, and gone again at the end.

Each raises `StartRefused` where it cannot be had.  What cannot be taken away at the end, since the server may be away, is told
of by its `stays`, in a sentence.  Whatever others have there, or write there meanwhile, stays.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import asyncpg
from aiokafka.errors import KafkaError

from processor.failures import Retryable, StartRefused
from processor.io.kafka import Cluster, connected, translated
from processor.io.kafka_topics import all_topics, create_topics
from processor.io.postgres import connecting
from processor.io.windows_generations import LAYOUT
from processor.setting_values import redis_urls
from processor.settings import Settings

Stays: TypeAlias = Callable[[str], None]
"""Is told what stays on a server, and what removes it."""

_NUMBERS = range(1, 16)
_TAKEN = "sandbox"
_AWAY_WITHIN_S = 1.0
_REMOVED_WITHIN_S = 30.0
"""A database, whose server makes a checkpoint first: a drop that is given up leaves one that nobody can connect to.  And keys."""
_DELETED_WITHIN_S = 3.0
"""Topics, by a client that has to find the brokers first."""
_KEYS_AT_ONCE = 1_000


def database_at(server: str, name: str) -> str:
    """The URL of another database of the server of one."""
    return _url(urlsplit(server)._replace(path=f"/{name}"))


def redis_at(server: str, number: int) -> str:
    """The URL of another logical database of the server of one: what the query says of it wins over the path."""
    parts = urlsplit(server)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name != "db"]
    if parts.scheme == "unix":
        return _url(parts._replace(query=urlencode([*kept, ("db", number)])))
    return _url(parts._replace(path=f"/{number}", query=urlencode(kept)))


def _url(parts: SplitResult) -> str:
    """With its two slashes also where no host is named."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Any]:
    """A connection of asyncpg that sees types as the driver does."""
    async with connecting():
        connection = await asyncpg.connect(url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=_AWAY_WITHIN_S)


@asynccontextmanager
async def own_database(server: str, name: str, stays: Stays) -> AsyncIterator[str]:
    """The URL of a new database on the server of another one; `name` is one that nobody else has."""
    asked = False
    try:
        async with reading(server) as connection:
            asked = True
            await _create(connection, name)
        yield database_at(server, name)
    finally:
        if asked:
            await _dropped(server, name, stays)


async def _create(connection: Any, name: str) -> None:
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    except asyncpg.PostgresError as error:
        raise StartRefused(f"cannot create a database: {error}; check DATABASE_URL") from error


async def _dropped(server: str, name: str, stays: Stays) -> None:
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
    try:
        async with AsyncExitStack() as leaving:
            async with asyncio.timeout(_AWAY_WITHIN_S):
                connection = await leaving.enter_async_context(reading(server))
            async with asyncio.timeout(_REMOVED_WITHIN_S):
                await connection.execute(drop)
    except (StartRefused, asyncpg.PostgresError, OSError, TimeoutError) as error:
        stays(f"the database {name} is still on its server ({_said(error)}): run {drop}")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__  # a timeout says nothing


@asynccontextmanager
async def own_redis(server: str, stays: Stays) -> AsyncIterator[str]:
    """The URL of a logical database of the server that holds nothing."""
    from redis.asyncio import from_url  # noqa: PLC0415  # slow to import, and rarely needed
    from redis.exceptions import RedisError  # noqa: PLC0415

    if len(redis_urls(server)) > 1:
        raise StartRefused("the demo needs one Redis server: a cluster has no logical databases")
    mark, asked = secrets.token_bytes(8), dict[int, str]()
    try:
        try:
            own = await _take(server, mark, asked, from_url)
        except (RedisError, OSError) as error:
            raise StartRefused(f"cannot use Redis: {error}; check REDIS_URL") from error
        yield own
    finally:
        for number, url in asked.items():
            try:
                async with from_url(url) as client:
                    await _emptied(client, mark)
            except (RedisError, OSError, TimeoutError) as error:
                keys = f"`{_TAKEN}` and {LAYOUT}:*"
                stays(
                    f"keys of database {number} are still in Redis ({_said(error)}): delete {keys}"
                )


async def _emptied(client: Any, mark: bytes) -> None:
    """Of what workers write, and of the mark, while it is ours."""
    async with asyncio.timeout(_AWAY_WITHIN_S):
        ours = await client.get(_TAKEN) == mark
    if not ours:
        return
    async with asyncio.timeout(_REMOVED_WITHIN_S):
        at = None
        while at != 0:
            at, keys = await client.scan(at or 0, match=f"{LAYOUT}:*", count=_KEYS_AT_ONCE)
            if keys:
                await client.unlink(*keys)
        await client.delete(_TAKEN)


async def _take(
    server: str, mark: bytes, asked: dict[int, str], from_url: Callable[[str], Any]
) -> str:
    """The first that is empty, marked as taken; `asked` has it, also where only the answer is missing."""
    for number in _NUMBERS:
        url = redis_at(server, number)
        async with from_url(url) as client:
            if not await client.dbsize():
                asked.clear()
                asked[number] = url
                if await client.set(_TAKEN, mark, nx=True):
                    return url
    asked.clear()
    raise StartRefused("Redis has no empty logical database from 1 to 15: name another REDIS_URL")


@asynccontextmanager
async def own_topics(settings: Settings, stays: Stays) -> AsyncIterator[None]:
    """The topics of `settings`, whose names are ones that nobody else has."""
    try:
        await create_topics(settings)
        yield
    finally:
        try:
            async with asyncio.timeout(_DELETED_WITHIN_S):
                await _delete(settings)
        except (StartRefused, Retryable, KafkaError, TimeoutError) as error:
            names = ", ".join(all_topics(settings))
            stays(f"topics may still be in Kafka ({_said(error)}): delete {names}")


async def _delete(settings: Settings) -> None:
    async with connected(Cluster(settings)) as admin, translated(_DELETED_WITHIN_S):
        await admin.delete_topics(all_topics(settings))
