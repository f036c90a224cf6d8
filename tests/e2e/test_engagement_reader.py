"""The reader of the enriched topic inside this process: what Faust drops is fetched again, and Faust's end is not the service's."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, cast

import asyncpg
import pytest
from aiokafka.errors import KafkaTimeoutError

from processor import telemetry
from processor.engagement import Engagement, rules
from processor.enriched_reader import Reader
from processor.io.engagement_store import Store
from processor.io.kafka import Cluster
from processor.io.postgres import Postgres
from tests.e2e.engaging import enriched
from tests.harness import Message, World, produce, until

pytestmark = pytest.mark.e2e


@pytest.fixture
async def service(world: World) -> AsyncIterator[Engagement]:
    """A running service on a world with topics; it ends in order."""
    await world.create_topics(2)
    async with running(world) as (service, code):
        await until(lambda: not service.unready(), 30)
        yield service
        service.stop()
        assert await code == 0
    assert not service.abandoned


@asynccontextmanager
async def running(world: World) -> AsyncIterator[tuple[Engagement, asyncio.Task[int]]]:
    """A service, and the exit code it will have."""
    postgres = await Postgres.connect(world.postgres, size=4)
    settings = world.settings()
    store = Store(postgres, settings.enriched_topic, rules(settings))
    service = Engagement(Cluster(settings), store)
    code = asyncio.create_task(service.run())
    try:
        yield service, code
    finally:
        service.stop()
        await code
        await postgres.close()


async def more(world: World, name: str, total: int) -> None:
    """A hundred more events; returns once `total` are counted in all."""
    messages = [Message(enriched(f"{name}-{n}", f"l{n}"), b"%d" % n) for n in range(100)]
    await produce(world.kafka, world.enriched, messages)
    await counted(world, total)


async def counted(world: World, total: int) -> None:
    """Returns once `total` are counted in all."""
    connection = await asyncpg.connect(world.postgres)

    async def all_of_them() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = $1 FROM engaged_events", total))

    await until(all_of_them, 30)
    await connection.close()


def joined(service: Engagement) -> Reader:
    """Its membership."""
    assert service._reader is not None
    return service._reader


def torn() -> float:
    """How often a partition was fetched again."""
    return float(telemetry.ENGAGEMENT_TORN._value.get())


async def test_records_that_faust_has_dropped_are_fetched_again(
    world: World, service: Engagement
) -> None:
    """The next one shows that they are missing; without a next one, time does."""
    await more(world, "first", 100)
    thread = cast("Any", joined(service).consumer)._thread
    fetch = thread._fetch_records
    dropped: list[object] = []
    numbers = count()

    async def drops(*args: object, **others: object) -> Mapping[object, object]:
        found: Mapping[object, object] = await fetch(*args, **others)
        if dropped or not any(found.values()):
            return found
        dropped.append(found)
        return {}

    async def has_dropped() -> bool:
        message = Message(enriched(f"lost-{next(numbers)}"), b"k", partition=0)
        await produce(world.kafka, world.enriched, [message])
        return bool(dropped)

    thread._fetch_records = drops
    await until(has_dropped, 20)
    await counted(world, 100 + next(numbers))


async def test_records_behind_a_gap_are_not_counted_before_it(
    world: World, service: Engagement
) -> None:
    """Here the reader does not know what it was that it has fetched before."""
    await more(world, "first", 100)
    before = torn()
    cast("Any", joined(service).consumer)._thread.before.clear()
    await more(world, "second", 200)
    assert torn() > before


async def test_a_membership_that_faust_has_given_up_is_followed_by_another(world: World) -> None:
    """The process goes on, and so does counting where it was."""
    await world.create_topics(2)
    async with running(world) as (service, code):
        await until(lambda: not service.unready(), 30)
        await more(world, "first", 100)
        first = joined(service)
        await first.crash(RuntimeError("for the test"))
        if await followed(service, first, code):
            await more(world, "second", 200)


async def test_a_kafka_that_is_silent_during_a_rebalance_is_asked_again(
    world: World, service: Engagement
) -> None:
    """The membership outlives it: an error there may keep Faust from ending, and so the process from going on."""
    await more(world, "first", 100)
    first = joined(service)
    consumer = cast("Any", first.consumer)
    ask, silent = consumer.earliest_offsets, [KafkaTimeoutError("for the test")] * 2

    async def asked(*partitions: object) -> Mapping[object, int]:
        if silent:
            raise silent.pop()
        found: Mapping[object, int] = await ask(*partitions)
        return found

    consumer.earliest_offsets = asked
    async with running(world) as (second, code):
        await until(lambda: not silent and not second.unready() and not service.unready(), 30)
        await more(world, "second", 200)
        assert joined(service) is first
        second.stop()
        assert await code == 0


async def test_a_topic_that_is_created_again_meanwhile_ends_the_membership(world: World) -> None:
    """Fetching alone would not notice; the next one goes on where the topic is the one that was counted."""
    await world.create_topics(2)
    async with running(world) as (service, code):
        await until(lambda: not service.unready(), 30)
        await more(world, "first", 100)
        first = joined(service)
        cast("Any", first.consumer).topic_read = b"another"
        if await followed(service, first, code):
            await more(world, "second", 200)


async def followed(service: Engagement, first: Reader, code: asyncio.Task[int]) -> bool:
    """Whether another membership follows in this process: where Faust does not end, the process does, and its successor is the next one."""
    await until(
        lambda: code.done() or (service._reader not in {None, first} and not service.unready()),
        30,
    )
    if code.done():
        assert (code.result(), service.abandoned) == (1, True)
    return not code.done()
