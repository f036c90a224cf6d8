"""Where a lane publishes: outputs, dead letters and the offset of a batch, in one of two guarantees.

A sink lives as long as one producer.  Whatever error one of its steps raises, the sink is discarded
and a new one started: aiokafka's producer does not recover from most of them, and says so for few.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from msgspec import Struct

from processor import telemetry
from processor.failures import Failure, Retryable, Stopped, Unsettled
from processor.io.ending import ended, seen
from processor.io.kafka import Cluster, Partition, translated
from processor.io.kafka_batches import Packed, Packing, TooLarge, pack
from processor.io.kafka_committed import marked
from processor.io.kafka_producer import abandon
from processor.io.kafka_topics import Limits
from processor.pure.types import Message, Outcome, Stage

START_S = 20.0
DISCARD_S = 3.0
ABORT_S = 1.0

Commit: TypeAlias = Callable[[Mapping[Partition, tuple[int, str]]], Awaitable[None]]
"""Offsets, each with its mark."""


class Outlet(Struct, frozen=True):
    """What the sinks of all lanes share."""

    cluster: Cluster
    limits: Limits
    too_large: TooLarge

    @property
    def publish_s(self) -> float:
        """A transaction ends before the broker gives it up."""
        return self.cluster.tuning.transaction_ms * 0.8 / 1000


class Batches:
    """One producer: packs messages, sends the batches and knows when they are acknowledged."""

    def __init__(self, outlet: Outlet, source: Partition, transactional_id: str | None) -> None:
        self._made_for = outlet.limits.known
        size = min(outlet.cluster.tuning.produce_bytes, outlet.limits.smallest)
        self.producer: AIOKafkaProducer = outlet.cluster.producer(size, transactional_id)
        self._outlet = outlet
        self._source = source
        self._letters: Counter[Stage] = Counter()
        """Dead letters among what was packed last."""

    async def start(self) -> None:
        """Connects and gets the producer's id; with a transactional one this fences its predecessors."""
        async with translated(START_S):
            await self.producer.start()
            limits = self._outlet.limits
            for topic in (self._source.topic, *limits.topics):
                await self.producer.partitions_for(topic)

    def pack(self, outcome: Outcome) -> Packed:
        """Raises `Stopped` for what fits nowhere."""
        return self.packed(outcome.messages, self._source.topic)

    def packed(self, messages: Sequence[Message], source: str) -> Packed:
        """As `pack`, of messages that answer records of the topic `source`."""
        self._letters = Counter(message.stage for message in messages if message.stage)
        packing = Packing(
            input_partitions=self.count(source),
            partitions=self.count,
            max_bytes=self._outlet.limits.max_bytes,
            builder=self.producer.create_batch,
            too_large=self._instead,
        )
        return pack(messages, packing)

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Publishing, within the time a transaction has; raises `Retryable`, `Fenced` or `Stopped`."""
        try:
            async with translated(self._outlet.publish_s):
                yield
        except Retryable as error:
            if not isinstance(error.__cause__, MessageSizeTooLargeError):
                raise
            raise await self._refused_size() from error

    async def send(self, packed: Packed) -> None:
        """Returns when every batch is acknowledged.

        Every one is awaited: a transaction commits although a batch of it has failed.
        """
        sent: list[asyncio.Future[object]] = []
        for target, batches in packed.items():
            for batch in batches:
                batch.close()
                partition = target.partition
                sent.append(
                    await self.producer.send_batch(batch, target.topic, partition=partition)
                )
                sent[-1].add_done_callback(seen)
        try:
            if sent:
                await asyncio.wait(sent)
            while sent:
                sent.pop(0).result()
        finally:
            # An error holds this frame; what has failed by it would close a cycle that holds the whole batch.
            sent.clear()

    def count_letters(self) -> None:
        """Once what was packed last is committed: a try that failed counts nothing."""
        for stage, number in self._letters.items():
            telemetry.DEAD_LETTERS.labels(stage).inc(number)

    def _instead(self, message: Message) -> Message:
        instead = self._outlet.too_large(message)
        if instead is not message and instead.stage:
            self._letters[instead.stage] += 1
        return instead

    async def _refused_size(self) -> Failure:
        """A limit that was lowered since the producer was made, whichever lane has noticed it first, or a dead end."""
        await self._outlet.limits.refresh()
        if self._outlet.limits.known != self._made_for:
            return Retryable("kafka", "an output topic's max.message.bytes was changed")
        return Stopped(
            "an output topic refuses the size of a batch that keeps its max.message.bytes"
        )

    async def begin(self) -> None:
        """Opens a transaction."""
        await self.producer.begin_transaction()
        self._forget_its_end()

    async def join(self, group: str) -> None:
        """The transaction that is open has a part in the group, as if an offset had joined it."""
        while not await self.producer._sender._do_add_offsets_to_txn(group):  # noqa: SLF001 - an offset would be another one
            pass

    def touch(self) -> None:
        """It has one in every partition that outputs go to, before it ends, as if something had been sent."""
        for topic in self._outlet.limits.topics:
            for number in range(self.count(topic)):
                self.producer._txn_manager.maybe_add_partition_to_txn(Partition(topic, number))  # noqa: SLF001

    async def abort(self) -> None:
        """Ends the transaction that is open, as well as it can."""
        await ended(self.producer.abort_transaction(), ABORT_S)
        self._forget_its_end()

    def _forget_its_end(self) -> None:
        """How a transaction ended is no news to whoever had the error of one of its steps."""
        end = self.producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - nobody else is told of it
        end.add_done_callback(seen)

    async def discard(self) -> None:
        """Closes the producer, whatever state it is in; what it sends within `DISCARD_S` is sent, and then nothing of it is left."""
        accumulator = self.producer._message_accumulator  # noqa: SLF001 - nobody is told that these are not sent
        for batch in chain(*accumulator._batches.values(), accumulator._pending_batches):  # noqa: SLF001
            batch._drain_waiter.add_done_callback(seen)  # noqa: SLF001
        try:
            await ended(self.producer.stop(), DISCARD_S)
        finally:
            await abandon(self.producer)

    def count(self, topic: str) -> int:
        """How many partitions a topic has; raises `Retryable` where it is gone."""
        partitions = self.producer.client.cluster.partitions_for_topic(topic)
        if not partitions:
            raise Retryable("kafka", f"topic {topic} is gone")
        return len(partitions)


class Transactional:
    """Exactly once: outputs and offset in one transaction of the input partition's own producer."""

    settles = True

    def __init__(self, outlet: Outlet, source: Partition) -> None:
        cluster = outlet.cluster
        self.batches = Batches(outlet, source, cluster.transactional_id(source))
        self._group = cluster.settings.consumer_group
        self._source = source
        self._open = False

    async def start(self) -> None:
        """Fences whoever had the partition before: from here on its offset cannot move."""
        await self.batches.start()

    async def settle(self) -> None:
        """Commits what a predecessor left without an end; raises as `publish` does.

        A broker that restarts may call a transaction complete without its end in any partition: its outputs, and all after
        them, stay invisible, and its offset open.  The end of the next transaction of the same transactional id ends both.
        It is a commit: outputs are acknowledged before an offset joins them, so what has an offset is whole.
        """
        async with self.batches.step():
            await self.begin()
            await self.batches.join(self._group)
            self.batches.touch()
            await self.commit()

    async def drop(self) -> None:
        """Aborts outputs that a predecessor left without an end; raises as `publish` does."""
        async with self.batches.step():
            await self.begin()
            self.batches.touch()
            await self.batches.producer.abort_transaction()
            self._open = False

    async def publish(self, outcome: Outcome) -> None:
        """Raises `Retryable`, `Fenced` or `Stopped`; the sink is then to be discarded."""
        packed = self.batches.pack(outcome)
        async with self.batches.step():
            await self.begin()
            await self.send(packed)
            await self.place(outcome.next_offset)
            await self.commit()
        self.batches.count_letters()

    async def begin(self) -> None:
        """Opens the transaction."""
        await self.batches.begin()
        self._open = True

    async def send(self, packed: Packed) -> None:
        """Every output, acknowledged."""
        await self.batches.send(packed)

    async def place(self, next_offset: int) -> None:
        """The offset joins the transaction."""
        offsets = {self._source: marked(next_offset)}
        await self.batches.producer.send_offsets_to_transaction(offsets, self._group)

    async def commit(self) -> None:
        """Outputs and offset become visible together."""
        await self.batches.producer.commit_transaction()
        self._open = False

    async def discard(self) -> None:
        """Aborts what is open, so that readers need not wait for its time to run out, and closes."""
        try:
            if self._open:
                await self.batches.abort()
        finally:
            await self.batches.discard()


class Idempotent:
    """At least once: outputs, then the offset."""

    settles = False

    def __init__(self, outlet: Outlet, source: Partition, commit: Commit) -> None:
        self.batches = Batches(outlet, source, None)
        self._source = source
        self._commit = commit

    async def start(self) -> None:
        """Fences nobody: two owners at once publish twice."""
        await self.batches.start()

    async def settle(self) -> None:
        """Never called: what was left open is a transaction's, and only a producer with its id can end it."""

    async def drop(self) -> None:
        """Raises `Unsettled`, for the same reason."""
        reason = "only a worker in exactly_once can end what a transaction has left open"
        raise Unsettled("kafka", reason)

    async def publish(self, outcome: Outcome) -> None:
        """Raises `Retryable`, `Fenced` or `Stopped`; the sink is then to be discarded."""
        packed = self.batches.pack(outcome)
        async with self.batches.step():
            await self.send(packed)
            await self.place(outcome.next_offset)
        self.batches.count_letters()

    async def send(self, packed: Packed) -> None:
        """Every output, acknowledged."""
        await self.batches.send(packed)

    async def place(self, next_offset: int) -> None:
        """The offset, committed as a member of the group."""
        await self._commit({self._source: marked(next_offset)})

    async def discard(self) -> None:
        """Closes the producer."""
        await self.batches.discard()
