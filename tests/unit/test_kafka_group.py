"""A membership whose fetch comes to nothing: what that means depends on the lane, or ends it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, NoOffsetForPartitionError

from processor.failures import Retryable
from processor.io.kafka import Cluster, Partition
from processor.io.kafka_group import Group
from processor.pure.types import Record
from processor.settings import Settings
from tests.unit.simulation.clients import Connections

SOUGHT, NEW, GONE = (Partition("events.raw", number) for number in range(3))


class Consumer:
    """Each fetch finds no offset in the next partition; then nothing comes any more."""

    _client = Connections()
    _fetcher = None

    def __init__(self, *without: Partition) -> None:
        self._without = list(without)
        self.subscribed = asyncio.Event()
        self.tired = asyncio.Event()

    async def start(self) -> None:
        """At once."""

    def subscribe(self, topics: Sequence[str], listener: object) -> None:
        """The test assigns."""
        self.subscribed.set()

    async def getmany(self, *_: Partition, **__: int) -> Mapping[Partition, Sequence[Record]]:
        if self._without:
            raise NoOffsetForPartitionError(self._without.pop(0))
        self.tired.set()
        await asyncio.Event().wait()
        return {}

    async def stop(self) -> None:
        """At once."""


class Lane:
    """Reads, or has not sought yet; remembers whether it was told that its position is lost."""

    def __init__(self, *, reads: bool) -> None:
        self.lost = False
        self._reads = reads
        self._closed = asyncio.Event()

    async def run(self) -> None:
        await self._closed.wait()

    def wants_records(self) -> bool:
        return self._reads

    def feed(self, records: Sequence[Record]) -> None:
        """Nothing comes."""

    def lose_position(self) -> None:
        self.lost = True

    def close(self) -> None:
        self._closed.set()


class Lonely(Cluster):
    """Hands out this consumer."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(Settings())
        self._only = consumer

    def consumer(self) -> AIOKafkaConsumer:
        return cast("Any", self._only)


async def test_a_partition_without_an_offset_ends_no_membership() -> None:
    """A fetch that goes on over a rebalance asks where nobody has sought yet; a lane that reads begins again."""
    consumer = Consumer(NEW, GONE, SOUGHT)
    group = Group(Lonely(consumer), ["events.raw"], lambda p, _: Lane(reads=p == SOUGHT))
    async with asyncio.TaskGroup() as scope:
        running = scope.create_task(group.run())
        await consumer.subscribed.wait()
        await group.on_partitions_assigned({SOUGHT, NEW})
        async with asyncio.timeout(5):
            await consumer.tired.wait()
        told = {partition: lane.lost for partition, lane in group.lanes.items()}
        assert told == {SOUGHT: True, NEW: False}
        assert not running.done()
        group.leave()


class GivesUp(Consumer):
    """Its fetch ends as if somebody had cancelled it."""

    async def getmany(self, *_: Partition, **__: int) -> Mapping[Partition, Sequence[Record]]:
        raise asyncio.CancelledError


async def test_a_fetch_that_is_cancelled_by_nobody_ends_the_membership() -> None:
    """Else nobody would fetch any more, and nobody would know."""
    group = Group(Lonely(GivesUp()), ["events.raw"], lambda *_: Lane(reads=True))
    with pytest.raises(Retryable, match="gave up a fetch"):
        async with asyncio.timeout(5):
            await group.run()


class Moves(Consumer):
    """Its coordinator goes away, and another one answers."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[Exception] = [NodeNotReadyError(), KafkaConnectionError()]

    async def standing(self, partition: Partition) -> None:
        if self.lost:
            raise self.lost.pop()


async def test_a_coordinator_that_moves_is_asked_again_whether_a_transaction_has_ended() -> None:
    """No lane gives up a batch for it."""
    consumer = Moves()
    group = Group(Lonely(consumer), ["events.raw"], lambda *_: Lane(reads=True))
    async with asyncio.timeout(5):
        await group.settled(SOUGHT)
    assert consumer.lost == []
