"""The engagement service where the enriched topic is no longer what was counted: it ends and says so, and skips nothing in silence."""

from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete

from processor.io.kafka import Cluster, connected
from tests.e2e.engaging import enriched
from tests.e2e.test_engagement_reader import counted
from tests.harness import Message, Worker, World, produce, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
StartWorker = Callable[..., Worker]


async def sent(world: World, name: str, events: int) -> None:
    """So many events of one partition."""
    messages = [Message(enriched(f"{name}-{n}"), b"k", partition=0) for n in range(events)]
    await produce(world.kafka, world.enriched, messages)


async def counted_and_ended(world: World, start_worker: StartWorker) -> None:
    """A hundred events are counted, and the process has ended."""
    await sent(world, "first", 100)
    process = start_worker(world.environment(), "engagement")
    await process.ready(60)
    await counted(world, 100)
    assert await process.stop() == 0


async def ends(world: World, start_worker: StartWorker) -> str:
    """What a process says that ends by itself: the reason, in one line, since it is no defect."""
    process = start_worker(world.environment(), "engagement")
    assert await process.ended(60) == 1
    await counted(world, 100)
    (line,) = [line for line in process.output.splitlines() if "engagement_failed" in line]
    assert "Traceback" not in process.output
    return line


async def test_a_topic_that_was_created_again_is_not_counted_from_the_middle(
    world: World, start_worker: StartWorker
) -> None:
    """Although it holds the place: what is before it would never be counted."""
    await world.create_topics(1)
    await counted_and_ended(world, start_worker)
    async with connected(Cluster(world.settings())) as admin:
        await admin.delete_topics([world.enriched])

        async def gone() -> bool:
            found = await admin.describe_topics(None)
            return world.enriched not in {one["topic"] for one in found}

        await until(gone, 20)
    await world.create_topics(1)
    await sent(world, "second", 200)
    assert "created again" in await ends(world, start_worker)


async def test_records_that_were_lost_before_they_were_counted_are_told(
    world: World, start_worker: StartWorker
) -> None:
    """The line says what to do."""
    await world.create_topics(1)
    await counted_and_ended(world, start_worker)
    await sent(world, "second", 200)
    place = TopicPartition(world.enriched, 0)
    async with AIOKafkaConsumer(bootstrap_servers=world.kafka) as consumer:
        end = (await consumer.end_offsets([place]))[place]
    async with connected(Cluster(world.settings())) as admin:
        await admin.delete_records({place: RecordsToDelete(end)})
    assert "engagement_places" in await ends(world, start_worker)
