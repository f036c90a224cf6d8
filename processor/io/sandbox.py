"""A database, an empty Redis and topics of one's own on servers that others use too: made, and gone again at the end.

Each raises `StartRefused` where it cannot be had; what it takes away at the end is best effort, since the server may be away.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka.errors import KafkaError

from processor.failures import Retryable, StartRefused
from processor.io.kafka import Cluster, connected, translated
from processor.io.kafka_topics import create_topics
from processor.io.postgres import connecting
from processor.settings import Settings, redis_urls

_NUMBERS = range(1, 16)
_TAKEN = "sandbox"
_AWAY_WITHIN_S = 1.0
_DELETED_WITHIN_S = 3.0
"""Topics, by a client that has to find the brokers first."""


def _at(server: str, path: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{path}"))


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
async def own_database(server: str, name: str) -> AsyncIterator[str]:
    """The URL of a new database on the server of another one."""
    try:
        async with reading(server) as connection:
            await connection.execute(f"CREATE DATABASE {name}")
    except asyncpg.PostgresError as error:
        raise StartRefused(f"cannot create a database: {error}; check DATABASE_URL") from error
    try:
        yield _at(server, name)
    finally:
        with suppress(StartRefused, asyncpg.PostgresError, OSError, TimeoutError):
            async with asyncio.timeout(_AWAY_WITHIN_S), reading(server) as connection:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def own_redis(server: str) -> AsyncIterator[str]:
    """The URL of a logical database of the server that holds nothing."""
    from redis.asyncio import from_url  # noqa: PLC0415  # slow to import, and rarely needed
    from redis.exceptions import RedisError  # noqa: PLC0415

    if len(redis_urls(server)) > 1:
        raise StartRefused("the demo needs one Redis server: a cluster has no logical databases")
    try:
        url = await _empty(server, from_url)
    except (RedisError, OSError) as error:
        raise StartRefused(f"cannot use Redis: {error}; check REDIS_URL") from error
    try:
        yield url
    finally:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(_AWAY_WITHIN_S), from_url(url) as client:
                await client.flushdb()


async def _empty(server: str, from_url: Callable[[str], Any]) -> str:
    for number in _NUMBERS:
        url = _at(server, str(number))
        async with from_url(url) as client:
            if not await client.dbsize() and await client.set(_TAKEN, 1, nx=True):
                return url
    raise StartRefused("Redis has no empty logical database from 1 to 15: name another REDIS_URL")


@asynccontextmanager
async def own_topics(settings: Settings) -> AsyncIterator[None]:
    """The topics of `settings`, those that were missing."""
    made = [topic.name for topic in await create_topics(settings) if topic.created]
    try:
        yield
    finally:
        with suppress(Retryable, KafkaError, TimeoutError):
            async with asyncio.timeout(_DELETED_WITHIN_S):
                await _delete(settings, made)


async def _delete(settings: Settings, names: Iterable[str]) -> None:
    async with connected(Cluster(settings)) as admin, translated(_DELETED_WITHIN_S):
        await admin.delete_topics(list(names))
