"""What the API's producer promises its callers, whatever becomes of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.failures import Retryable
from processor.io import producing
from processor.io.clock import now_ms
from processor.io.kafka import Cluster, connected
from processor.io.producing import Producing, Sending, TooLargeError
from tests.harness import World, hour_ago, read_topic, until

pytestmark = pytest.mark.e2e

AT = hour_ago()
DAY = 86_400_000


@pytest.fixture
async def writer(world: World) -> AsyncIterator[Producing]:
    """On topics of two partitions."""
    await world.create_topics(2)
    found = Producing(Cluster(world.settings()))
    yield found
    await found.close()


def sending(world: World, key: str, timestamp: int = AT, size: int = 1) -> Sending:
    """A record of the raw topic."""
    return Sending(world.raw, key.encode(), b"x" * size, timestamp)


async def test_every_place_has_the_timestamp_of_its_own_record(
    world: World, writer: Producing
) -> None:
    """Records that share a batch, too; where the topic sets the time it is that one."""
    places = await writer.send([sending(world, "a", AT + n) for n in range(5)])
    assert [place.timestamp for place in places] == [AT + n for n in range(5)]
    stored = await read_topic(world.kafka, world.raw)
    assert [(r.partition, r.offset, r.timestamp) for r in stored] == [
        (place.partition, place.offset, place.timestamp) for place in places
    ]
    append = ConfigResource(
        ConfigResourceType.TOPIC, world.raw, {"message.timestamp.type": "LogAppendTime"}
    )
    async with connected(Cluster(world.settings())) as admin:
        await admin.alter_configs([append])

    async def set_by_the_topic() -> bool:
        (place,) = await writer.send([sending(world, "a")])
        (last, *_) = reversed(await read_topic(world.kafka, world.raw))
        assert last.timestamp == place.timestamp
        return place.timestamp != AT

    await until(set_by_the_topic)


async def test_a_call_of_which_a_record_fails_says_so_and_the_next_one_succeeds(
    world: World, writer: Producing
) -> None:
    """Other calls at the same time are answered one way or the other, and no failure is lost."""
    later = now_ms() + DAY  # the topic refuses more than an hour
    bad = [sending(world, f"k{n}", later if n % 7 == 3 else AT) for n in range(50)]
    good = [sending(world, f"k{n}") for n in range(50)]

    async def fails() -> None:
        with pytest.raises(Retryable):
            await writer.send(bad)

    async with asyncio.timeout(producing.SEND_S + 1), asyncio.TaskGroup() as scope:
        for _ in range(3):
            scope.create_task(fails())
    assert len(await writer.send(good)) == 50
    await writer.answers()


async def test_a_record_that_is_too_large_is_named_and_nothing_is_written(
    world: World, writer: Producing
) -> None:
    """It costs nobody the producer."""
    records = [sending(world, "a"), sending(world, "b", size=1 << 20), sending(world, "c")]
    for call in (writer.fits, writer.send):
        with pytest.raises(TooLargeError) as caught:
            await call(records)
        assert (caught.value.number, caught.value.max_bytes) == (1, 1_048_588)
    assert await read_topic(world.kafka, world.raw) == []


async def test_more_than_may_wait_is_refused_at_once(world: World, writer: Producing) -> None:
    """Memory is bounded while Kafka is slow; what waits is written."""
    large = [sending(world, str(n), size=1_000_000) for n in range(40)]
    async with asyncio.TaskGroup() as scope:
        first = scope.create_task(writer.send(large))
        await until(lambda: writer._held_bytes)
        with pytest.raises(Retryable, match="bytes wait"):
            await writer.send(large)
    assert len(first.result()) == 40
    assert len(await writer.send(large[:1])) == 1


async def test_where_kafka_is_away_every_call_ends_in_time(world: World) -> None:
    """Those that share one attempt to start, and the end itself."""
    nowhere = Producing(Cluster(world.settings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")))

    async def fails() -> None:
        with pytest.raises(Retryable):
            await nowhere.send([sending(world, "a")])

    async with asyncio.timeout(producing.SEND_S + 1), asyncio.TaskGroup() as scope:
        for _ in range(20):
            scope.create_task(fails())
    async with asyncio.timeout(5):
        await nowhere.close()
