"""One membership of the consumer group: joins, feeds the lanes of its partitions, drains, leaves.

Lanes belong to an assignment: each rebalance ends all of them (it revokes everything) and begins new ones.
Records are asked for by explicit partitions, never by pausing, which would throw away what is fetched.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    UnknownTopicOrPartitionError,
)

from processor import telemetry
from processor.failures import Retryable
from processor.io.ending import gave_up
from processor.io.kafka import Cluster, Partition, translated
from processor.io.kafka_reading import next_record, stopped
from processor.pure.lane import Bounds
from processor.pure.types import Record

NOBODY = Partition("__nobody__", 0)
"""Asking for no partition would mean all of them."""
POLL_MS = 100
ANSWER_S = 10.0
MARKERS_S = 0.02
"""Within this a transaction that was committed has mostly ended in all its partitions."""
_LOST = KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
LEAVE_S = 6.0
ABANDON_S = 5.0


class Lane(Protocol):
    """What the membership needs of a lane."""

    async def run(self) -> None:
        """Until it is closed, fenced or failed for good."""

    def wants_records(self) -> bool:
        """Whether what is fetched for it now will be taken."""

    def feed(self, records: Sequence[Record]) -> None:
        """Hands over what was fetched, in order."""

    def lose_position(self) -> None:
        """The offset it reads from is no longer in the log."""

    def close(self) -> None:
        """Finish what is in flight, take nothing else."""


L = TypeVar("L", bound=Lane)


class Group(ConsumerRebalanceListener, Generic[L]):  # type: ignore[misc]  # aiokafka ships no types
    """A member of the consumer group, from `run` to its return."""

    def __init__(
        self,
        cluster: Cluster,
        topics: Sequence[str],
        make_lane: Callable[[Partition, "Group[L]"], L],
    ) -> None:
        self.lanes: dict[Partition, L] = {}
        self.joined = False
        self._cluster = cluster
        self._tuning = cluster.tuning
        self._topics = topics
        self._make_lane = make_lane
        self._consumer = cluster.consumer()
        self._leaving = asyncio.Event()
        self._running: dict[Partition, asyncio.Task[None]] = {}
        self._ending = asyncio.Lock()
        self._scope = asyncio.TaskGroup()
        self._failure: Exception | None = None

    def leave(self) -> None:
        """Drain and return from `run`."""
        self._leaving.set()

    async def run(self) -> None:
        """Until `leave`; raises `Retryable` where the group could not be joined or the consumer broke."""
        try:
            async with translated(ANSWER_S * 2):
                await self._consumer.start()
            self._consumer.subscribe(list(self._topics), listener=self)
            async with self._scope as scope:
                polling = scope.create_task(self._poll())
                await self._leaving.wait()
                await self._end_lanes(self._tuning.drain_ms / 1000)
                polling.cancel()
        finally:
            # A coordinator that does not answer misses the session's end by itself: no reason to fail.
            await stopped(self._consumer, LEAVE_S)
        if self._failure:
            raise self._failure

    async def on_partitions_assigned(self, assigned: set[Partition]) -> None:
        """Returns at once: no heartbeat is sent before it does."""
        telemetry.REBALANCES.inc()
        self.joined = True
        try:
            self._begin_lanes(assigned)
        except Exception as error:  # aiokafka would log it and go on without lanes
            self._fail(error)

    async def on_partitions_revoked(self, revoked: set[Partition]) -> None:
        """Lets batches in flight finish: until this returns the partitions are still ours."""
        self.joined = False
        await self._end_lanes(self._tuning.rebalance_ms / 3000)

    def owns(self, partition: Partition) -> bool:
        """Whether the partition is assigned to this membership, as far as it knows."""
        return not self._leaving.is_set() and partition in self._consumer.assignment()

    async def bounds(self, partition: Partition) -> Bounds:
        """Where the group stands in the partition, read until two readings agree; raises `Unsettled` where it stays open.

        Brokers before 2.5 may show a transaction's offset a little after its end.
        """
        async with translated(ANSWER_S):
            topic = await self._consumer.identity(partition.topic)
            while True:
                found = await self._consumer.standing(partition)
                start = await self._consumer.beginning_offsets([partition])
                end = await self._consumer.end_offsets([partition])
                if found == await self._consumer.standing(partition):
                    return Bounds(
                        found.offset,
                        start[partition],
                        end[partition],
                        topic,
                        by_lane=found.by_lane,
                    )

    async def settled(self, partition: Partition) -> None:
        """Returns once no transaction is about to change where the group stands; raises `Unsettled` where one stays open."""
        async with translated(ANSWER_S):
            while True:
                await asyncio.sleep(MARKERS_S)  # who asks at once has to ask twice
                with suppress(*_LOST):  # a coordinator that moves is no reason to give up a batch
                    await self._consumer.standing(partition)
                    return

    async def record(self, partition: Partition, offset: int) -> Record | None:
        """The record at an offset below the end; None where there is none."""
        reader = self._cluster.reader()
        try:
            async with translated(ANSWER_S):
                await reader.start()
                reader.assign([partition])
                reader.seek(partition, offset)
                found: Record | None = await next_record(reader, partition, offset + 1)
        finally:
            await stopped(reader)
        return found if found is not None and found.offset == offset else None

    def seek(self, partition: Partition, offset: int) -> None:
        """What is fetched from now on begins at `offset`."""
        self._consumer.seek(partition, offset)

    async def commit(self, offsets: Mapping[Partition, tuple[int, str]]) -> None:
        """As a member of the group; raises aiokafka's errors."""
        await self._consumer.commit(dict(offsets))

    async def answers(self) -> None:
        """Returns where Kafka is there; raises `Retryable`."""
        async with translated(ANSWER_S):
            await self._consumer.topics()

    async def ends(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """The offset after the last readable record of each; raises `Retryable`."""
        async with translated(ANSWER_S):
            ends: Mapping[Partition, int] = await self._consumer.end_offsets(partitions)
            return ends

    async def identities(self) -> Mapping[str, bytes]:
        """Of the topics that lanes read, those there are; raises `Retryable`."""
        found: dict[str, bytes] = {}
        for topic in {partition.topic for partition in self.lanes}:
            async with translated(ANSWER_S):
                with suppress(UnknownTopicOrPartitionError):
                    found[topic] = await self._consumer.identity(topic)
        return found

    async def position(self, partition: Partition) -> int:
        """The offset that is fetched next; beyond the last record too, where what follows is no record."""
        async with translated(ANSWER_S):
            return int(await self._consumer.position(partition))

    async def _poll(self) -> None:
        while True:
            try:
                fetched = await self._fetch()
            except OffsetOutOfRangeError as error:
                for partition in error.args[0]:
                    if partition in self.lanes:
                        self.lanes[partition].lose_position()
            except NoOffsetForPartitionError as error:
                self._begins(error.args[0])
            except Retryable as failure:
                self._fail(failure)
                return
            else:
                self._hand_over(fetched)

    async def _fetch(self) -> Mapping[Partition, Sequence[Record]]:
        """What has come for lanes that want records; raises aiokafka's error where a lane has lost its place, else `Retryable`."""
        wanted = [p for p, lane in self.lanes.items() if lane.wants_records()]
        try:
            fetched: Mapping[Partition, Sequence[Record]] = await self._consumer.getmany(
                *(wanted or [NOBODY]),
                timeout_ms=POLL_MS,
                max_records=self._tuning.batch_records,
            )
        except (OffsetOutOfRangeError, NoOffsetForPartitionError):
            raise
        except KafkaError as error:
            raise Retryable("kafka", f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError as error:
            if not gave_up():
                raise
            raise Retryable("kafka", "the client gave up a fetch") from error
        return fetched

    def _begins(self, partition: Partition) -> None:
        """A fetch that went on over a rebalance asks for partitions nobody has sought in yet: what is new here begins by seeking."""
        lane = self.lanes.get(partition)
        if lane is not None and lane.wants_records():
            lane.lose_position()

    def _hand_over(self, fetched: Mapping[Partition, Sequence[Record]]) -> None:
        for partition, records in fetched.items():
            lane = self.lanes.get(partition)
            # Whether there is room was asked before the fetch, and the position is past these by now: only a lane that seeks
            # again may leave them out.
            if lane is not None:
                lane.feed(records)

    def _begin_lanes(self, assigned: set[Partition]) -> None:
        if self._leaving.is_set():
            return
        for partition in sorted(assigned):
            lane = self._make_lane(partition, self)
            self.lanes[partition] = lane
            self._running[partition] = self._scope.create_task(lane.run())

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self.leave()

    async def _end_lanes(self, grace_s: float) -> None:
        """Who comes second waits too: a partition is given up only when its lane has ended."""
        lanes, self.lanes = self.lanes, {}
        for lane in lanes.values():
            lane.close()
        async with self._ending:
            running, self._running = self._running, {}
            late = await _unfinished(running.values(), grace_s)
            for task in late:
                task.cancel()
            await _unfinished(late, ABANDON_S)


async def _unfinished(
    tasks: Collection[asyncio.Task[None]], timeout_s: float
) -> set[asyncio.Task[None]]:
    """Those that have not ended after `timeout_s`."""
    if not tasks:
        return set()
    _, pending = await asyncio.wait(tasks, timeout=timeout_s)
    return pending
