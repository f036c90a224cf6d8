"""Kafka's clients over the fake broker: the consumer of a membership and the producer of a lane's life."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError, RequestTimedOutError

from processor.io.kafka import Partition, translated
from processor.io.kafka_committed import Standing
from processor.io.kafka_sink import START_S, Batches, Outlet
from processor.pure.types import Message, Outcome, Record
from tests.unit.simulation.broker import Broker
from tests.unit.simulation.stage import Process, Stage

Marked: TypeAlias = tuple[int, str]
T = TypeVar("T")
SIZES = (1, 3, 10, 40)
"""Records of a fetch."""


class Connections:
    """What a client of aiokafka has beneath it."""

    async def close(self) -> None:
        """At once."""


class Consumer:
    """A member of the group as aiokafka is one, but less kind: what it loses is lost before its listener hears of it."""

    _client = Connections()
    _fetcher = None

    def __init__(self, stage: Stage, broker: Broker, process: Process, *, fenced: bool) -> None:
        self.stage = stage
        self.process = process
        self.fenced = fenced
        """Offsets move in transactions: only who has started a producer may believe one."""
        self.assigned: set[Partition] = set()
        self.generation = 0
        self.assignments = 0
        self.revoked = 0
        """The last assignment whose end the listener knows of."""
        self.producing: set[Partition] = set()
        """Partitions whose producer has fenced its predecessors."""
        self._broker = broker
        self._at: dict[Partition, int] = {}
        self._asked: set[Partition] = set()
        self._changed = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects."""

    def subscribe(self, topics: Sequence[str], listener: ConsumerRebalanceListener) -> None:
        """Joins; the listener is called as long as the consumer lives."""
        self._broker.join(self)
        self._heart = asyncio.get_running_loop().create_task(self._beats(listener))

    async def stop(self) -> None:
        """Leaves; a process that died is missed later."""
        if self._heart is not None:
            self._heart.cancel()
        if self.process.alive:
            self._broker.drop(self)

    def changes(self) -> None:
        """It will hear that partitions are given anew."""
        self._changed.set()

    def assignment(self) -> set[Partition]:
        """As far as it knows."""
        return set(self.assigned)

    def seek(self, partition: Partition, offset: int) -> None:
        """Where fetches go on."""
        if partition in self.assigned:
            self._at[partition] = offset

    async def identity(self, topic: str) -> bytes:
        """No topic is created again."""
        return topic.encode()

    async def standing(self, partition: Partition) -> Standing:
        """The group's offset, which lanes alone commit."""
        if self.fenced and partition not in self.producing:
            self.stage.problems.append(
                f"the offset of {name(partition)} is read before its producer starts"
            )
        committed = self._broker.committed
        if partition in self._asked:
            self._asked.discard(partition)  # the second of two readings, which are compared
            return Standing(committed.get(partition), by_lane=True)
        offset: int | None = await self._asks(
            partition, "reads the committed offset", lambda _: committed.get(partition)
        )
        self._asked.add(partition)
        return Standing(offset, by_lane=True)

    async def beginning_offsets(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Nothing is ever cut off here."""
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Everything is there from the beginning on."""
        return {p: len(self._broker.logs[p]) for p in partitions}

    async def position(self, partition: Partition) -> int:
        """The offset that is fetched next."""
        return self._at.get(partition, 0)

    async def topics(self) -> None:
        """Kafka answers."""

    async def commit(self, offsets: Mapping[Partition, Marked]) -> None:
        """As a member of the generation that it knows when it asks."""
        generation = self.generation
        places = _unmarked(offsets)
        for partition in offsets:
            await self._asks(
                partition,
                f"commits {_places(places)}",
                lambda _: self._broker.commit(places, generation),
            )

    async def getmany(
        self, *partitions: Partition, timeout_ms: int, max_records: int
    ) -> dict[Partition, Sequence[Record]]:
        """Some of what is there; nothing after `timeout_ms`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                return await self.stage.does(
                    (self.process, "polls"),
                    "fetches",
                    lambda n: self._fetched(self._with_more(partitions), n, max_records),
                    possible=lambda: bool(self._with_more(partitions)),
                )
        return {}

    async def _beats(self, listener: ConsumerRebalanceListener) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            old = set(self.assigned)
            if old:
                await self._hears("hears that partitions are given anew", self._loses)
                await self._hears("tells its lanes", lambda: None)
            await listener.on_partitions_revoked(old)
            self.revoked = self.assignments
            await self._hears("is given partitions", self._gets)
            await listener.on_partitions_assigned(set(self.assigned))

    def _loses(self) -> None:
        self.assigned = set()
        self._at.clear()

    def _gets(self) -> None:
        if self not in self._broker.members:
            self._broker.join(self)
        self._changed.clear()
        self.assigned = set(self._broker.share(self))
        self.generation = self._broker.generation
        self.assignments += 1

    async def _hears(self, what: str, effect: Any) -> None:
        await self.stage.does((self.process, ""), what, lambda _: effect())

    async def _asks(self, partition: Partition, what: str, effect: Any) -> Any:
        who = self.process, name(partition)
        return await self.stage.does(who, what, effect, RequestTimedOutError())

    def _with_more(self, partitions: Sequence[Partition]) -> list[Partition]:
        logs = self._broker.logs
        return [p for p in partitions if p in self._at and self._at[p] < len(logs[p])]

    def _fetched(
        self, partitions: list[Partition], n: int, most: int
    ) -> dict[Partition, Sequence[Record]]:
        partition = partitions[n // len(SIZES) % len(partitions)]
        at = self._at[partition]
        found = self._broker.logs[partition][at : at + min(most, SIZES[n % len(SIZES)])]
        self._at[partition] += len(found)
        return {partition: found}


class Reader:
    """Looks at single records, which never change."""

    _client = Connections()
    _fetcher = None

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at = 0

    async def start(self) -> None:
        """Connects."""

    def assign(self, partitions: Sequence[Partition]) -> None:
        """To read from."""

    def seek(self, _: Partition, offset: int) -> None:
        """Where it reads."""
        self._at = offset

    async def getmany(
        self, partition: Partition, *, timeout_ms: int, max_records: int
    ) -> dict[Partition, Sequence[Record]]:
        """The records from there on."""
        return {partition: self._broker.logs[partition][self._at : self._at + max_records]}

    async def position(self, _: Partition) -> int:
        """Where it stands."""
        return self._at

    async def stop(self) -> None:
        """Disconnects."""


class Producer(Batches):
    """A producer as `Batches` has one, from its start to its end."""

    def __init__(
        self, consumer: Consumer, broker: Broker, outlet: Outlet, source: Partition, own_id: str
    ) -> None:
        self.producer = self
        self._outlet = outlet
        self._source = source
        self._letters = Counter()
        self._consumer = consumer
        self._broker = broker
        self._id = own_id
        """Its transactional id; empty: it has none."""
        self._epoch = 0
        self._used = False
        """There is something in the transaction, as far as it knows."""
        self._assignment = consumer.assignments

    async def start(self) -> None:
        """Fences its predecessors where it has an id."""
        consumer = self._consumer
        if self._source not in consumer.assigned:
            self._never("starts a producer for a partition it does not have")
        async with translated(START_S):
            if self._id:
                what = f"starts producer {self._id}"
                self._epoch = await self._call(what, lambda _: self._broker.init(self._id))
        consumer.producing.add(self._source)

    def pack(self, outcome: Outcome) -> Any:
        """Messages as they are."""
        if self._consumer.revoked >= self._assignment:
            self._never("publishes although its assignment is over")
        return outcome.messages

    async def begin(self) -> None:
        """The broker hears of it with the first message."""

    async def send(self, packed: Any) -> None:
        """All that there are, acknowledged."""
        messages: Sequence[Message] = packed
        if not messages:
            return
        what = f"sends {len(messages)} messages"
        self._used = True
        if self._id:
            epoch = self._epoch
            await self._call(what, lambda _: self._broker.send(self._id, epoch, messages))
        else:
            await self._call(what, lambda _: self._broker.publish(messages))

    async def send_offsets_to_transaction(
        self, offsets: Mapping[Partition, Marked], group: str
    ) -> None:
        """The offset joins the transaction."""
        epoch, self._used = self._epoch, True
        places = _unmarked(offsets)
        what = f"adds {_places(places)} to its transaction"
        await self._call(what, lambda _: self._broker.place(self._id, epoch, places))

    async def commit_transaction(self) -> None:
        """All or nothing."""
        await self._ends("commits", commit=True)

    async def abort(self) -> None:
        """As well as it can."""
        with suppress(KafkaError, OSError):
            await self._ends("aborts", commit=False)

    async def discard(self) -> None:
        """What it had open stays open until somebody ends it."""
        self._consumer.producing.discard(self._source)

    async def _ends(self, what: str, *, commit: bool) -> None:
        epoch, used, self._used = self._epoch, self._used, False
        if used:
            await self._call(what, lambda _: self._broker.end(self._id, epoch, commit=commit))

    async def _call(self, what: str, effect: Any) -> Any:
        who = self._consumer.process, name(self._source)
        return await self._consumer.stage.does(who, what, effect, RequestTimedOutError())

    def _never(self, what: str) -> None:
        whose = f"{self._consumer.process.name}, {name(self._source)}"
        self._consumer.stage.problems.append(f"{whose}: {what}")


def name(partition: Partition) -> str:
    """As the schedule says it."""
    return f"{partition.topic}/{partition.partition}"


def _unmarked(offsets: Mapping[Partition, Marked]) -> dict[Partition, int]:
    return {partition: offset for partition, (offset, _) in offsets.items()}


def _places(offsets: Mapping[Partition, int]) -> str:
    return ", ".join(f"{name(p)} at {offset}" for p, offset in offsets.items())
