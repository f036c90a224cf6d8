"""What tests on real servers share: a world of their own on the session's stack, workers, topics and waiting.

A `World` has a fresh database, an empty Redis and topics that no other test knows, so tests may run in any
order.  Nothing here sleeps for a fixed time: whatever takes a while is waited for, with a deadline.
"""

import asyncio
import secrets
from collections.abc import Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis
from aiokafka.admin import AIOKafkaAdminClient

from processor.embedded.journal import free_port
from processor.io.kafka_topics import create_topics
from processor.settings import Settings
from tests.harness_kafka import Message, hour_ago, produce, read_topic
from tests.harness_waiting import until, until_now
from tests.harness_worker import Worker, http_get, processor

__all__ = [
    "WORLDS_KEPT",
    "Message",
    "Worker",
    "World",
    "create_database",
    "database_url",
    "delete_topics",
    "drop_database",
    "empty_redis",
    "execute",
    "flush_redis",
    "free_port",
    "hour_ago",
    "http_get",
    "processor",
    "produce",
    "read_topic",
    "run",
    "until",
    "until_now",
]

T = TypeVar("T")
_REDIS_DATABASES = range(1, 16)
WORLDS_KEPT = 20
"""Worlds of tests that are over whose topics may still be there."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result, in a loop of its own: for fixtures, which must not touch the test's loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def database_url(server: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def execute(url: str, *statements: str) -> None:
    """Runs the statements one by one, each committed by itself."""

    async def all_of_them() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    run(all_of_them())


def create_database(server: str, template: str | None = None) -> str:
    """The name of a new database, a copy of `template`."""
    name = f"test_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    return name


def drop_database(server: str, name: str) -> None:
    """Drops it, whoever is still connected."""
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def empty_redis(server: str) -> str:
    """The URL of a logical database that holds nothing: what others keep in theirs stays."""
    for number in _REDIS_DATABASES:
        url = urlunsplit(urlsplit(server)._replace(path=f"/{number}"))
        with redis.Redis.from_url(url) as connection:
            if not connection.dbsize():
                return url
    raise AssertionError(f"{server} has no empty logical database: FLUSHALL it, or unset REDIS_URL")


def flush_redis(url: str) -> None:
    """Empties the logical database: what a worker kept there is lost."""
    with redis.Redis.from_url(url) as connection:
        connection.flushdb()


@dataclass(frozen=True)
class World:
    """The servers and names of one test; `environment` brings a processor there."""

    kafka: str
    redis: str
    postgres: str
    id: str

    @property
    def raw(self) -> str:
        """The topic of raw events."""
        return f"{self.id}.raw"

    @property
    def merges(self) -> str:
        """The topic of merges."""
        return f"{self.id}.merges"

    @property
    def enriched(self) -> str:
        """The topic of verdicts."""
        return f"{self.id}.enriched"

    @property
    def dead(self) -> str:
        """The topic of dead letters."""
        return f"{self.id}.dead"

    @property
    def group(self) -> str:
        """The consumer group of the workers."""
        return f"{self.id}.group"

    def environment(self) -> dict[str, str]:
        """Every variable a processor needs to work here."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis,
            "DATABASE_URL": self.postgres,
            "RAW_TOPIC": self.raw,
            "MERGE_TOPIC": self.merges,
            "ENRICHED_TOPIC": self.enriched,
            "DEAD_TOPIC": self.dead,
            "ENGAGEMENT_TOPIC": f"{self.id}.engagement",
            "CONSUMER_GROUP": self.group,
        }

    def settings(self, **more: str) -> Settings:
        """The same for code under test in this process; `more` are further variables."""
        return Settings.model_validate({**self.environment(), **more})

    async def create_topics(self, partitions: int = 4) -> None:
        """Creates the four topics, with `partitions` each where it is up to us."""
        await create_topics(self.settings(), partitions)


async def delete_topics(kafka: str, worlds: Collection[str]) -> None:
    """Those of the worlds: with thousands of partitions a broker takes a minute to start again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.partition(".")[0] in worlds]
        await admin.delete_topics(names)
    finally:
        await admin.close()
