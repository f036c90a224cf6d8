"""Where a run happens: a database, an empty Redis and a topic for the output of its own, on servers that all runs share."""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import from_url

from processor.embedded import Stack
from processor.io.kafka_topics import create_topics
from processor.io.sandbox import reading
from processor.settings import Settings

PARTITIONS = 8
TABLE = """
CREATE TABLE events (
    org_unit text NOT NULL, id text NOT NULL, lead_id text NOT NULL, event_type text NOT NULL, metadata jsonb NOT NULL,
    suppression_reason text, created_at timestamptz NOT NULL, PRIMARY KEY (org_unit, id));
CREATE INDEX ON events (org_unit, created_at DESC);
CREATE INDEX ON events (org_unit, lead_id, created_at DESC);
"""
"""For whoever has no schema of its own."""


@dataclass(frozen=True)
class Site:
    """The servers and names of one run."""

    kafka: str
    redis: str
    postgres: str
    id: str
    raw: str

    @property
    def enriched(self) -> str:
        """The topic of verdicts."""
        return f"{self.id}.enriched"

    @property
    def group(self) -> str:
        """The consumer group of the contender."""
        return f"{self.id}.group"

    def variables(self) -> Mapping[str, str]:
        """What brings a processor, or whoever reads the same variables, here."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis,
            "DATABASE_URL": self.postgres,
            "RAW_TOPIC": self.raw,
            "MERGE_TOPIC": f"{self.id}.merges",
            "ENRICHED_TOPIC": self.enriched,
            "DEAD_TOPIC": f"{self.id}.dead",
            "ENGAGEMENT_TOPIC": f"{self.id}.engagement",
            "CONSUMER_GROUP": self.group,
        }

    def environment(self) -> dict[str, str]:
        """Of a process: that of this one, where every setting that is not ours has its default, and Python keeps what it compiles."""
        ours = {str(field.validation_alias) for field in Settings.model_fields.values()}
        ours.add("PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, **self.variables()}

    async def create_topics(self) -> None:
        """Those that are missing."""
        await create_topics(Settings.model_validate(self.variables()), PARTITIONS)


@asynccontextmanager
async def own_site(stack: Stack, run: str, raw: str | None) -> AsyncIterator[Site]:
    """Of the run so named, on servers that are the bench's own, one run after the other.  It reads the topic `raw`, or one of its own; the database goes again."""
    name = f"bench_{secrets.token_hex(4)}"
    await execute(stack.postgres, f"CREATE DATABASE {name}")
    try:
        async with from_url(stack.redis) as redis:
            await redis.flushdb()
        database = urlunsplit(urlsplit(stack.postgres)._replace(path=f"/{name}"))
        site = Site(stack.kafka, stack.redis, database, run, raw or f"{run}.raw")
        await site.create_topics()
        yield site
    finally:
        await execute(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def execute(url: str, statements: str) -> None:
    """Runs them on a connection of its own."""
    async with reading(url) as connection:
        await connection.execute(statements)
