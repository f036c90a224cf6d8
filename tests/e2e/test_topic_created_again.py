"""The raw topic deleted and created again while a lane has a batch of it in hand: all of the new one is processed."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from tests.e2e.operating import administering
from tests.harness import Message, Worker, World, produce, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass)"


def events(prefix: str, number: int) -> Sequence[Message]:
    """Of one lead."""
    event = b'{"id": "%s-%d", "org_unit": "acme", "lead_id": "l", "event_type": "page_view"}'
    return [Message(event % (prefix.encode(), n), b"l", 0) for n in range(number)]


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[asyncpg.Connection]:
    """To the world's database."""
    connection = await asyncpg.connect(world.postgres)
    try:
        yield connection
    finally:
        await connection.close()


async def stored(connection: asyncpg.Connection, prefix: str) -> int:
    """How many of these events."""
    found: int = await connection.fetchval(
        "SELECT count(*) FROM events WHERE starts_with(id, $1)", prefix
    )
    return found


async def create_again(world: World) -> None:
    """The raw topic, with one partition."""
    async with administering(world) as admin:
        await admin.delete_topics([world.raw])

        async def created() -> bool:
            try:
                answer = await admin.create_topics([NewTopic(world.raw, 1, 1)])
            except KafkaError:
                return False
            return not answer.topic_errors[0][1]

        await until(created, 20)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_no_event_of_the_new_topic_is_skipped(
    world: World, start_worker: Callable[..., Worker], guarantee: str
) -> None:
    """Although the lane commits the batch, by the topic's name, when the old one has gone."""
    await world.create_topics(1)
    worker = start_worker({**world.environment(), "PROCESSING_GUARANTEE": guarantee})
    await produce(world.kafka, world.raw, events("old", 300))
    async with connected(world) as reader, connected(world) as holder:
        await until(lambda: _all(reader, "old", 300), 30)
        async with holder.transaction():
            await holder.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            await produce(world.kafka, world.raw, events("held", 50))
            await until(lambda: reader.fetchval(WAITING), 20)
            await create_again(world)
            await produce(world.kafka, world.raw, events("new", 600))
        await until(lambda: _all(reader, "new", 600), 60)
    assert await worker.stop() == 0


async def _all(connection: asyncpg.Connection, prefix: str, number: int) -> bool:
    return await stored(connection, prefix) == number
