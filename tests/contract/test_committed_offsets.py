"""Where a group stands, asked of a real coordinator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from processor.io.kafka import Cluster, Partition
from processor.io.kafka_committed import Member, marked
from tests.harness import World

pytestmark = pytest.mark.contract


@asynccontextmanager
async def asking(world: World, *partitions: Partition) -> AsyncIterator[Member]:
    """A started consumer of the group, which has these partitions."""
    consumer = Cluster(world.settings()).consumer()
    await consumer.start()
    consumer.assign(partitions)
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def transacting(world: World) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer that may move offsets."""
    producer = Cluster(world.settings()).producer(1 << 16, f"{world.id}.mover")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def test_a_group_stands_nowhere_until_it_has_committed(world: World) -> None:
    """None is not 0, and each partition has its own."""
    await world.create_topics(2)
    first, second = Partition(world.raw, 0), Partition(world.raw, 1)
    async with asking(world, first, second) as consumer:
        assert await consumer.standing(first) == (None, False)
        await consumer.commit({first: 0})
        assert await consumer.standing(first) == (0, False)
        assert await consumer.standing(second) == (None, False)


async def test_what_a_lane_commits_is_told_from_where_somebody_puts_the_group(
    world: World,
) -> None:
    """The mark belongs to its offset: one that is copied to another offset is none."""
    await world.create_topics(1)
    partition = Partition(world.raw, 0)
    async with asking(world, partition) as consumer:
        await consumer.commit({partition: marked(5)})
        assert await consumer.standing(partition) == (5, True)
        await consumer.commit({partition: (4, marked(5)[1])})
        assert await consumer.standing(partition) == (4, False)


async def test_an_offset_in_an_open_transaction_is_waited_for(world: World) -> None:
    """Neither the old nor the new one is an answer until the transaction has ended."""
    await world.create_topics(1)
    partition = Partition(world.raw, 0)
    async with asking(world, partition) as consumer, transacting(world) as producer:
        await consumer.commit({partition: 3})
        await producer.begin_transaction()
        await producer.send_offsets_to_transaction({partition: 7}, world.group)
        question = asyncio.create_task(consumer.standing(partition))
        done, _ = await asyncio.wait([question], timeout=0.5)
        assert not done
        await producer.commit_transaction()
        assert (await question).offset == 7
