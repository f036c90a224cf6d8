"""What becomes of batches that a topic refuses, or a broker forgets, with the producers of a worker's lanes on a real broker."""

import asyncio
import gc
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress

import pytest

from processor.failures import Retryable, Unsettled
from processor.io.kafka import Cluster, Partition, connected
from processor.io.kafka_sink import Idempotent, Outlet, Transactional
from processor.io.kafka_topics import Limits
from processor.pure.types import Message, Outcome
from tests.e2e.left_open import leave_open
from tests.e2e.operating import configure
from tests.harness import Message as Sent
from tests.harness import World, read_topic

pytestmark = pytest.mark.contract
BATCH = [b"x" * 9_000, b"x" * 9_000]


async def shared(world: World) -> Outlet:
    """What sinks share."""
    cluster = Cluster(world.settings())
    limits = Limits(cluster, [world.enriched])
    async with connected(cluster) as admin:
        await limits.read(admin)
    return Outlet(cluster, limits, lambda message: message)


async def sinks(world: World, closing: AsyncExitStack, count: int) -> list[Transactional]:
    """Those of so many lanes, which share what they know of limits."""
    outlet = await shared(world)
    made = [Transactional(outlet, Partition(world.raw, number)) for number in range(count)]
    for sink in made:
        await sink.start()
        closing.push_async_callback(sink.discard)
    return made


def outcome(world: World, partition: int) -> Outcome:
    """Two messages, which fit together into what a topic takes by default."""
    return Outcome([Message(world.enriched, b"k", v, (), 0, partition, None) for v in BATCH], 1)


async def test_every_lane_is_to_try_again_where_a_topic_takes_less_than_it_did(
    world: World,
) -> None:
    """Also the second one that is refused: that the first one has asked anew is no reason to give up."""
    await world.create_topics(2)
    async with AsyncExitStack() as closing:
        lanes = await sinks(world, closing, 2)
        await configure(world, world.enriched, max_message_bytes="16384")
        for number, lane in enumerate(lanes):
            with pytest.raises(Retryable, match=r"max\.message\.bytes was changed"):
                await lane.publish(outcome(world, number))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What is in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_nothing_of_a_batch_that_was_refused_waits_for_the_collector(world: World) -> None:
    """Collections are rare in a worker, and a lane may try again for hours."""
    await world.create_topics(1)
    async with AsyncExitStack() as closing:
        (lane,) = await sinks(world, closing, 1)
        await configure(world, world.enriched, max_message_bytes="16384")
        with suppress(Retryable):
            await lane.publish(outcome(world, 0))
            pytest.fail("the topic takes it")
    held = [one for one in gc.get_objects() if type(one) is Outcome]
    assert [m for one in held for m in one.messages if m.topic == world.enriched] == []


async def test_what_was_left_open_can_be_given_up(world: World) -> None:
    """The end of the next batch would else make it visible beside what was published instead of it."""
    await world.create_topics(1)
    await leave_open(world, Sent(b"left", b"k", 0))
    async with AsyncExitStack() as closing:
        (lane,) = await sinks(world, closing, 1)
        await lane.drop()
        await lane.publish(outcome(world, 0))
        visible: list[bytes | None] = []
        async with asyncio.timeout(10):
            while len(visible) < len(BATCH):
                visible = [record.value for record in await read_topic(world.kafka, world.enriched)]
    assert visible == BATCH


async def nobody(_: Mapping[Partition, tuple[int, str]]) -> None:
    """Commits nothing."""
    raise AssertionError


async def test_at_least_once_gives_up_nothing_that_was_left_open(world: World) -> None:
    """Whoever went on would hide that readers still wait for it."""
    await world.create_topics(1)
    async with AsyncExitStack() as closing:
        sink = Idempotent(await shared(world), Partition(world.raw, 0), nobody)
        closing.push_async_callback(sink.discard)
        with pytest.raises(Unsettled, match="exactly_once"):
            await sink.drop()
