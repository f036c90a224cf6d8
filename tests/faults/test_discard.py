"""What is left of a producer when Kafka goes away in a step of its transaction: nothing."""

import asyncio
import secrets
from types import CoroutineType
from typing import Any, cast

import pytest
from msgspec.structs import replace

from processor.failures import Retryable
from processor.io.kafka import DEFAULT_TUNING, Cluster, Partition, connected
from processor.io.kafka_sink import Outlet, Transactional
from processor.io.kafka_topics import Limits
from processor.pure.types import Message, Outcome
from tests.faults.proxy import END_TXN, PRODUCE, TXN_OFFSETS, TXN_PARTITIONS, Fate, proxied
from tests.faults.servers import FaultStack
from tests.harness import World

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]
TUNING = replace(DEFAULT_TUNING, transaction_ms=2_000)


def of_aiokafka() -> list[str]:
    """Its tasks that run."""
    coroutines = [
        cast("CoroutineType[Any, Any, Any]", task.get_coro()) for task in asyncio.all_tasks()
    ]
    return [repr(one) for one in coroutines if "aiokafka" in one.cr_code.co_filename]


@pytest.mark.parametrize("step", [PRODUCE, TXN_PARTITIONS, TXN_OFFSETS, END_TXN])
async def test_a_discarded_producer_leaves_no_task_behind(
    fault_stack: FaultStack, step: int
) -> None:
    """Its requests would be tried again for ever, and what waits for them be destroyed while it is pending."""
    stack = fault_stack
    world = World(stack.kafka, stack.redis, stack.postgres, f"t{secrets.token_hex(6)}")
    await world.create_topics(2)
    async with proxied(stack.behind, stack.proxy, kafka=True) as proxy:
        behind = world.settings(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{proxy.port}")
        cluster = Cluster(behind, TUNING)
        limits = Limits(cluster, [world.enriched])
        async with connected(cluster) as admin:
            await limits.read(admin)
        sink = Transactional(
            Outlet(cluster, limits, lambda message: message), Partition(world.raw, 0)
        )
        await sink.start()

        def away(key: int, _: bytes) -> Fate:
            if key == step:
                proxy.refuse()
            return Fate.PASS

        proxy.judge = away
        with pytest.raises(Retryable):
            await sink.publish(_outcome(world))
        async with asyncio.timeout(8):
            await sink.discard()
        assert of_aiokafka() == []


def _outcome(world: World) -> Outcome:
    return Outcome([Message(world.enriched, b"k", b"v", (), 0, n, None) for n in range(2)], 1)
