"""The reader of the live stream, over a broker that answers every question and perhaps hands over nothing."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from processor.io.kafka import Cluster
from processor.io.tail import LOOK_S, POLL_MS, STANDS_STILL, Tail
from processor.pure.frames import Read
from processor.pure.position import Lost, Position, Topic
from tests.unit.simulation.loop import Loop

GIVEN_UP_S = (STANDS_STILL + 1) * (LOOK_S + POLL_MS / 1000)
"""Some seconds more than a reader may stand still."""


class Broker:
    """One topic, whose partitions are all as long."""

    def __init__(self) -> None:
        self.partitions = 1
        self.length = 0
        self.hands_over = 0
        """How many records of a partition a reader is given at most."""
        self.readers = 0

    def follower(self, *_: int) -> "Reader":
        """As `Cluster` makes them."""
        self.readers += 1
        return Reader(self)


class Reader:
    """As much of aiokafka's consumer, and of its client, as a tail uses."""

    _fetcher = None

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client = self
        self._at: dict[Any, int] = {}

    async def start(self) -> None:
        """At once."""

    async def stop(self) -> None:
        """At once."""

    async def close(self) -> None:
        """At once."""

    def get_random_node(self) -> int:
        """There is one."""
        return 0

    async def send(self, _node: int, _request: object) -> Any:
        """What topics there are."""
        partitions = [{"partition": number} for number in range(self._broker.partitions)]
        topic = {"error_code": 0, "topic": "events", "partitions": partitions}
        return SimpleNamespace(cluster_id="one", to_object=lambda: {"topics": [topic]})

    def assign(self, partitions: Sequence[Any]) -> None:
        """From their beginnings, until it is told otherwise."""
        self._at = dict.fromkeys(partitions, 0)

    def assignment(self) -> set[Any]:
        """What is assigned."""
        return set(self._at)

    def seek(self, partition: Any, offset: int) -> None:
        """Goes on there."""
        self._at[partition] = offset

    async def position(self, partition: Any) -> int:
        """Where it goes on."""
        return self._at[partition]

    async def end_offsets(self, partitions: Sequence[Any]) -> Mapping[Any, int]:
        """The same everywhere."""
        return dict.fromkeys(partitions, self._broker.length)

    async def getmany(self, timeout_ms: int, **_: int) -> Mapping[Any, Sequence[Any]]:
        """A record, when its time is over."""
        await asyncio.sleep(timeout_ms / 1000)
        for partition, at in self._at.items():
            if at < self._broker.hands_over:
                self._at[partition] = at + 1
                return {partition: [SimpleNamespace(offset=at, headers=(), value=b"{}")]}
        return {}


class Told:
    """What a tail hands over."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def read(self, _before: Position, record: Read) -> None:
        """Notes it."""
        self.offsets.append(record.offset)

    def lost(self, why: Lost) -> None:
        """Never here."""
        raise AssertionError(why)


def followed(broker: Broker, told: Told) -> Tail:
    """A tail of the topic."""
    tail = Tail(cast("Cluster", broker), ["events"])
    asyncio.get_running_loop().create_task(tail.run(told))
    return tail


def played(play: Coroutine[Any, Any, None]) -> None:
    """To its end, in no time."""
    loop = Loop()
    with loop.running():
        playing = loop.create_task(play)
        loop.settle()
        while not playing.done():
            assert loop.advance(lambda _: True)
            loop.settle()
        playing.result()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.settle()
    assert not loop.failures


def test_a_reader_that_stands_still_before_records_is_replaced_again_and_again() -> None:
    """Until one moves: that one is kept, and nothing is left out."""

    async def play() -> None:
        broker, told = Broker(), Told()
        tail = followed(broker, told)
        await tail.started()
        broker.length = 40
        for readers in (2, 3, 4):
            await asyncio.sleep(GIVEN_UP_S)
            assert broker.readers == readers
        broker.hands_over = 40
        await asyncio.sleep(10 * GIVEN_UP_S)
        assert broker.readers == 4
        assert told.offsets == [*range(40)]

    played(play())


def test_a_reader_that_has_read_everything_is_kept() -> None:
    """However long nothing comes."""

    async def play() -> None:
        broker, told = Broker(), Told()
        tail = followed(broker, told)
        await tail.started()
        broker.length = broker.hands_over = 3
        await asyncio.sleep(10 * GIVEN_UP_S)
        assert (broker.readers, told.offsets) == (1, [0, 1, 2])

    played(play())


def test_a_position_with_partitions_that_were_just_added_is_reached_when_they_are_seen() -> None:
    """Another process may have seen them right after this one had looked; one that never comes is past what there is."""

    async def play() -> None:
        broker = Broker()
        tail = followed(broker, Told())
        await tail.started()
        await asyncio.sleep(0)
        (topic,) = tail.position.topics
        broker.partitions = 2
        given = Position((Topic(topic.identity, (0, 0)),))
        assert await tail.reached(given) == given
        further = Position((Topic(topic.identity, (0, 0, 0)),))
        assert await tail.reached(further) == "ahead"

    played(play())
