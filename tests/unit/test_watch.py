"""The watch: what ends a process, what it excuses, and the lag it tells."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from processor import watch as watching
from processor import worker as working
from processor.failures import Retryable
from processor.io.kafka import DEFAULT_TUNING, Partition
from processor.waits import Waits
from processor.watch import StalledError, Watch
from processor.worker import UNWATCHED_S, Work, Worker, open_sink
from tests.fakes_places import KnownPlaces
from tests.harness_waiting import until

HERE = Partition("watched", 0)
LIMIT_S = 0.0
"""Any second look is late."""


class FakeGroup:
    """A membership with one lane, as the watch sees it."""

    def __init__(self, phase: str = "processing", *, idle: bool = False) -> None:
        state = SimpleNamespace(offset=4, phase=phase)
        self.told: list[int | None] = []
        self.topics: list[bytes] = []
        lane = SimpleNamespace(
            partition=HERE,
            state=state,
            idle=idle,
            excused=False,
            tell=self.told.append,
            reads=self.topics.append,
        )
        self.lanes: Any = {HERE: lane}
        self.joined = True
        self.end = 9
        self.fetched = 4
        self.away = False
        self.looks = 0

    def owns(self, partition: Partition) -> bool:
        return partition in self.lanes

    async def answers(self) -> None:
        self.looks += 1
        if self.away:
            raise Retryable("kafka", "no answer")

    async def identities(self) -> dict[str, bytes]:
        await self.answers()
        return {HERE.topic: b"topic", "another": b"other"}

    async def ends(self, partitions: list[Partition]) -> dict[Partition, int]:
        await self.answers()
        return dict.fromkeys(partitions, self.end)

    async def position(self, _: Partition) -> int:
        return self.fetched


async def looked_at(group: Any, change: str = "", value: object = None) -> None:
    """Two looks, with a change of the lane or the group in between."""
    watch = Watch(Waits(), LIMIT_S)
    await watch._look(group)
    if change:
        target = group if hasattr(group, change) else group.lanes[HERE]
        setattr(target, change, value)
    await watch._look(group)


async def test_a_lane_that_does_not_move_although_nothing_is_away_ends_the_process() -> None:
    """The sentence names it."""
    group = FakeGroup()
    with pytest.raises(StalledError, match="watched"):
        await looked_at(group)
    assert group.told == [5, 5]


async def test_a_lane_that_cannot_even_start_counts_too() -> None:
    """Whatever the reason that nobody knows."""
    with pytest.raises(StalledError):
        await looked_at(FakeGroup("starting"))


@pytest.mark.parametrize(
    ("change", "value"),
    [("state", SimpleNamespace(offset=5, phase="processing")), ("excused", True), ("away", True)],
)
async def test_progress_and_dependencies_that_are_away_excuse_a_lane(
    change: str, value: object
) -> None:
    """Waiting for what will come back is no stall."""
    await looked_at(FakeGroup(), change, value)


async def test_an_idle_lane_behind_the_end_only_by_what_is_no_record_is_well() -> None:
    """Transaction markers at the end have offsets that nobody commits."""
    group = FakeGroup("ready", idle=True)
    group.fetched = 9
    await looked_at(group)
    assert group.told == [0, 0]


async def test_lanes_tell_what_they_can_while_kafka_is_away() -> None:
    """Nobody knows the lag then, and what waits grows older."""
    group = FakeGroup()
    await looked_at(group, "away", value=True)
    assert group.told == [5, None]


async def test_a_membership_that_never_gets_its_partitions_ends_the_process() -> None:
    """While Kafka answers."""
    group = FakeGroup()
    group.joined = False
    with pytest.raises(StalledError, match="group"):
        await looked_at(group)


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("away", [False, True])
async def test_looks_prove_a_worker_alive_until_it_drains(
    monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Also while Kafka is away; a drain has to end."""
    monkeypatch.setattr(watching, "LOOK_S", 0)
    group: Any = FakeGroup()
    group.away, clock = away, Clock()
    watch = Watch(Waits(), 300, clock)
    clock.now = 50
    assert watch.silent_s() == 50
    looking = asyncio.create_task(watch.over(group))
    await until(lambda: watch.silent_s() == 0)
    watch.drain()
    clock.now, looks = 70, group.looks
    await until(lambda: group.looks > looks + 3)
    assert watch.silent_s() == 20
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking


def test_a_worker_that_nobody_looks_after_is_dead() -> None:
    """What /healthz says then is one sentence."""
    outlet: Any = SimpleNamespace(cluster=SimpleNamespace(tuning=DEFAULT_TUNING))
    worker, clock = Worker(outlet, outlet, outlet), Clock()
    worker._watch = Watch(Waits(), 300, clock)
    clock.now = UNWATCHED_S
    assert worker.dead() == []
    clock.now += 1
    assert worker.dead() == ["no look at the lanes for 61 s"]


class RefusedConsumer:
    """Of a Kafka whose port refuses connections; each try takes half of what a worker may go without a look."""

    _fetcher = None

    def __init__(self, clock: Clock) -> None:
        self._client = self
        self._clock = clock
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1
        self._clock.now += UNWATCHED_S / 2
        raise ConnectionRefusedError

    async def stop(self) -> None:
        """Nothing is open."""

    async def close(self) -> None:
        """As `stop`."""


async def test_a_worker_that_joins_again_and_again_is_alive_until_it_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an outage no membership lasts until it is looked at, and another process would fare no better."""
    monkeypatch.setattr(working, "REJOIN_S", 0)
    clock = Clock()
    consumer = RefusedConsumer(clock)
    outlet: Any = SimpleNamespace(
        cluster=SimpleNamespace(tuning=DEFAULT_TUNING, consumer=lambda: consumer)
    )
    worker = Worker(Work({}, lambda message: message, KnownPlaces()), outlet, open_sink)
    worker._watch = Watch(Waits(), 300, clock)
    running = asyncio.create_task(worker.run())
    await until(lambda: consumer.starts > 5)
    assert worker.dead() == []
    assert "has not joined the consumer group" in worker.unready()
    worker.stop()
    assert await running == 0
    worker._watch.tended()
    clock.now += UNWATCHED_S
    assert worker.dead() != []
