"""A lane at work on fakes: what it publishes, retries, gives up and reports."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from processor.failures import Fenced, Retryable, Stopped, Unsettled
from processor.inbox import Budget
from processor.io.kafka import Partition, Tuning
from processor.lane_ports import Process, Shared
from processor.lanes import Lane
from processor.places import DOUBTED
from processor.pure.lane import Bounds
from processor.pure.types import Outcome, Record
from processor.turns import Turns
from processor.waits import Waits
from tests.fakes_places import KnownPlaces

HERE = Partition("in", 0)
FIRST, SECOND = b"first-named-", b"secondnamed-"
"""A topic of a name, and another one of it."""


class Broker:
    """One partition: its log, the group's offset, what was published, and what fails next."""

    def __init__(self, held: int = 0) -> None:
        self.start = 0
        self.end = held
        self.committed: int | None = None
        self.by_lane = True
        self.places = KnownPlaces()
        self.history = 0
        self.topic = FIRST
        self.published: list[int] = []
        self.owned = True
        self.left = False
        self.sinks = 0
        self.discarded = 0
        self.failures: list[Exception] = []
        self.unsettled = False
        self.left_open = range(0)
        """Outputs that hang: the next transaction makes them visible, or takes them along where it is aborted."""
        self.pending: int | None = None
        """An offset that hangs, until the next transaction of the group."""
        self.unanswered: list[Exception] = []
        """Questions for where the group stands."""
        self.forgets = False
        """The end of what is published next."""
        self.loses_answer = False
        """That it was."""
        self.lane: Lane

    def owns(self, partition: Partition) -> bool:
        assert partition == HERE
        return self.owned

    async def bounds(self, partition: Partition) -> Bounds:
        assert partition == HERE
        if self.unsettled:
            raise Unsettled("kafka", "the end of a transaction does not come")
        if self.unanswered:
            raise self.unanswered.pop()
        return Bounds(self.committed, self.start, self.end, self.topic, self.by_lane)

    async def settled(self, partition: Partition) -> None:
        await self.bounds(partition)

    async def record(self, partition: Partition, offset: int) -> Record | None:
        assert partition == HERE
        return record(offset, self.history)

    def seek(self, partition: Partition, offset: int) -> None:
        """What is there is fetched at once, as soon as the lane wants it."""
        assert partition == HERE
        asyncio.get_running_loop().call_soon(self.deliver, offset)

    def leave(self) -> None:
        self.left = True

    def deliver(self, first: int) -> None:
        records = [record(offset) for offset in range(first, self.end)]
        if records and self.lane.wants_records():
            self.lane.feed(records)


class FakeSink:
    """Publishes to the broker, or raises what it has in store."""

    def __init__(self, broker: Broker, *, settles: bool = True) -> None:
        self.settles = settles
        self._broker = broker
        broker.sinks += 1

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Commits, or is interrupted half way: the offset is given up, what was published hangs on."""
        await asyncio.sleep(0)
        broker = self._broker
        broker.unsettled = False
        if broker.failures:
            raise broker.failures.pop(0)
        broker.committed = broker.pending
        broker.published += broker.left_open
        broker.left_open = range(0)

    async def drop(self) -> None:
        if not self.settles:
            raise Unsettled("kafka", "it takes another sink")
        self._broker.left_open = range(0)

    async def publish(self, outcome: Outcome) -> None:
        await asyncio.sleep(0)
        broker = self._broker
        said, broker.published = broker.published, [*broker.published, *broker.left_open]
        broker.left_open = range(0)
        if broker.failures:
            broker.published = said
            raise broker.failures.pop(0)
        outputs = range(broker.committed or 0, outcome.next_offset)
        if broker.forgets:
            broker.forgets, broker.unsettled = False, True
            broker.left_open, broker.pending = outputs, outcome.next_offset
            return
        broker.published += outputs
        broker.committed = outcome.next_offset
        if broker.loses_answer:
            broker.loses_answer = False
            raise Retryable("kafka", "the answer is lost")

    async def discard(self) -> None:
        self._broker.discarded += 1


def record(offset: int, history: int = 0) -> Record:
    """A record of the partition, in one of its histories."""
    found: Record = SimpleNamespace(
        topic="in",
        partition=0,
        offset=offset,
        timestamp=offset + history,
        key=None,
        value=b"",
        headers=(),
    )
    return found


async def passes_on(records: Sequence[Record]) -> Outcome:
    """The simplest process there is."""
    return Outcome([], records[-1].offset + 1)


class Taken:
    """A process that remembers what it was given."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def __call__(self, records: Sequence[Record]) -> Outcome:
        self.offsets += [record.offset for record in records]
        return await passes_on(records)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the lane run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is seen, not signalled
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    broker: Broker,
    process: Process = passes_on,
    defects: list[Exception] | None = None,
    turns: Turns | None = None,
    *,
    settles: bool = True,
) -> AsyncIterator[Lane]:
    """A lane at work, closed at the end; it may have closed itself by then."""
    waits, tuning = Waits(), Tuning(recheck_ms=1, batch_records=10)
    shared = Shared(
        processes={"in": process},
        open_sink=lambda *_: FakeSink(broker, settles=settles),
        places=broker.places,
        waits=waits,
        budget=Budget(1 << 20),
        turns=turns or Turns(),
        tuning=tuning,
        defect=(defects if defects is not None else []).append,
    )
    lane = broker.lane = Lane(HERE, broker, shared)
    async with asyncio.TaskGroup() as group:
        group.create_task(lane.run())
        yield lane
        lane.close()
    assert not waits.away
    assert shared.budget.held == 0
    assert broker.discarded == broker.sinks


async def test_a_lane_publishes_from_the_committed_offset_on() -> None:
    """In batches of at most the size that is set."""
    broker = Broker(held=25)
    broker.committed = 3
    async with running(broker):
        await until(lambda: broker.committed == 25)
    assert broker.published == list(range(3, 25))
    assert broker.sinks == 1


async def test_a_lane_that_waits_for_its_turn_takes_what_has_come_meanwhile() -> None:
    """Batches grow where turns are rare."""
    broker, turns, sizes = Broker(held=1), Turns(1, 3_600.0), []

    async def counts(records: Sequence[Record]) -> Outcome:
        sizes.append(len(records))
        return await passes_on(records)

    async with running(broker, counts, turns=turns) as lane:
        async with turns.turn():
            await until(lambda: not lane.inbox.empty)
            broker.end = 4
            broker.deliver(1)
        await until(lambda: broker.committed == 4)
    assert sizes == [4]


async def test_a_lane_that_is_closed_while_it_waits_for_its_turn_takes_nothing() -> None:
    """What it was fed stays for its next owner."""
    broker, taken, turns = Broker(held=5), Taken(), Turns(1, 3_600.0)
    async with running(broker, taken, turns=turns) as lane, turns.turn():
        await until(lambda: not lane.inbox.empty)
        lane.close()
    assert taken.offsets == []


@pytest.mark.parametrize("failure", [Retryable("kafka", "no answer"), Retryable("kafka", "K9")])
async def test_after_a_failed_step_on_kafka_it_begins_again_with_a_new_producer(
    failure: Exception,
) -> None:
    """From the committed offset, so nothing is left out and nothing comes twice."""
    broker = Broker(held=5)
    broker.failures = [failure, failure]
    async with running(broker) as lane:
        await until(lambda: broker.committed == 5)
        await until(lambda: not lane.excused)
    assert broker.published == list(range(5))
    assert broker.sinks == 3


@pytest.mark.parametrize("told", [10, None])
async def test_a_lane_goes_on_where_it_published_though_its_group_has_forgotten_it(
    told: int | None,
) -> None:
    """Nothing is published twice because a coordinator lost what it committed, or that anything was."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.committed, broker.by_lane, broker.end = told, told is not None, 30
    async with running(broker, taken):
        await until(lambda: broker.committed == 30)
    assert taken.offsets == [*range(30)]


@pytest.mark.parametrize("told", [10, None])
async def test_a_log_that_went_back_with_its_group_is_processed_as_it_is_now(
    told: int | None,
) -> None:
    """Of a topic that lost its end other records are in the places of those that were published."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.committed, broker.by_lane, broker.history = told, told is not None, 1
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    assert taken.offsets == [*range(25), *range(told or 0, 25)]


async def test_a_log_that_ends_before_what_was_published_is_processed_from_its_groups_offset() -> (
    None
):
    """Nobody skips what may come there."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.committed = broker.end = 10
    async with running(broker, taken) as lane:
        await until(lambda: lane.idle)
        assert lane.state.offset == 10
    assert taken.offsets == [*range(25)]


@pytest.mark.parametrize("end", [30, 10])
async def test_what_a_lane_has_committed_to_a_topic_of_before_skips_nothing_of_another_one(
    end: int,
) -> None:
    """Kafka takes an offset by the topic's name, also when the topic has gone and another one has come."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.topic, broker.history, broker.end = SECOND, 1, end
    with capture_logs() as lines:
        async with running(broker, taken):
            await until(lambda: broker.committed == end)
    assert taken.offsets == [*range(25), *range(end)]
    assert "offset_of_another_topic" in [line["event"] for line in lines]


async def test_an_offset_of_a_topic_of_before_is_not_believed_by_who_comes_next() -> None:
    """Though a lane has begun in the new one and had nothing to publish."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.topic, broker.history, broker.end = SECOND, 1, 0
    async with running(broker, taken) as lane:
        await until(lambda: lane.idle)
        lane.reads(SECOND)
    broker.end = 40
    async with running(broker, taken):
        await until(lambda: broker.committed == 40)
    assert taken.offsets == [*range(25), *range(40)]


@pytest.mark.parametrize(
    ("before", "now", "by_lane"),
    [
        (FIRST, SECOND, False),
        (b"named-named-", SECOND, True),
        (FIRST, b"named-named-", True),
        (FIRST, b"secondother-", True),
        (b"first-", SECOND, True),
        (b"first-", FIRST, True),
    ],
)
async def test_an_offset_holds_in_another_topic_where_it_may_be_meant(
    before: bytes, now: bytes, by_lane: bool
) -> None:
    """An operator has put the group there, brokers do not tell topics apart or did not then, or it is another cluster that has a copy."""
    broker, taken = Broker(held=25), Taken()
    broker.topic = before
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.topic, broker.by_lane, broker.end = now, by_lane, 30
    async with running(broker, taken):
        await until(lambda: broker.committed == 30)
    assert taken.offsets == [*range(30)]


async def test_a_lane_that_reads_on_in_another_topic_begins_at_its_beginning() -> None:
    """Nothing tells it so at once where the other one is as long already; who has died by then knows it too."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken) as lane:
        await until(lambda: broker.committed == 25)
        broker.topic, broker.history, broker.end = SECOND, 1, 30
        lane.reads(FIRST)
        lane.feed([record(offset, 1) for offset in range(25, 30)])
        await until(lambda: broker.committed == 30)
        lane.reads(SECOND)
        await until(lambda: len(taken.offsets) == 60)
        await until(lambda: not lane.excused)
    assert taken.offsets == [*range(30), *range(30)]


async def test_a_lane_stops_before_records_that_went_with_the_groups_offset() -> None:
    """Neither holds what was between, but Postgres knows where it began: an operator says where to go on."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.committed, broker.by_lane, broker.start, broker.end = None, False, 28, 40
    async with running(broker, taken) as lane:
        await until(lambda: lane.phase() == "stopped")
        assert lane.state.offset == 25
        broker.committed = 28
        await until(lambda: broker.committed == 40)
    assert taken.offsets == [*range(25), *range(28, 40)]


async def test_a_log_that_is_empty_is_gone_on_with_where_it_ends() -> None:
    """Its records are all gone by age: there is nothing to repeat, and nothing to skip."""
    broker = Broker(held=25)
    async with running(broker):
        await until(lambda: broker.committed == 25)
    broker.committed, broker.start = 10, 25
    async with running(broker) as lane:
        await until(lambda: lane.idle)
        assert lane.state.offset == 25


async def test_a_lane_that_may_not_begin_leaves_its_place_as_it_was() -> None:
    """What the log holds may be seen wrongly for a moment: then it goes on from there."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    known = dict(broker.places.known)
    broker.committed, broker.start, broker.end = 10, 15, 20
    async with running(broker, taken) as lane:
        await until(lambda: lane.phase() == "stopped")
        assert broker.places.known == known
        broker.end = 30
        await until(lambda: broker.committed == 30)
    assert taken.offsets == [*range(30)]


async def test_what_is_fetched_before_a_lane_has_sought_is_not_taken() -> None:
    """It is from wherever the consumer stood before, however long the lane takes to begin."""
    broker, taken = Broker(held=25), Taken()
    broker.committed = 10
    broker.places.taking = lambda: broker.deliver(20)
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    assert taken.offsets == [*range(10, 25)]


async def test_a_group_that_somebody_put_back_is_begun_from_there() -> None:
    """And where lanes come to from there is what is known of it then."""
    broker, taken = Broker(held=25), Taken()
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    broker.committed, broker.by_lane, broker.end = 10, False, 12
    async with running(broker, taken):
        await until(lambda: broker.committed == 12)
    broker.by_lane, broker.end = True, 25
    async with running(broker, taken):
        await until(lambda: broker.committed == 25)
    assert taken.offsets == [*range(25), *range(10, 25)]


async def test_what_was_fetched_is_taken_though_others_have_filled_the_budget_meanwhile() -> None:
    """Room is asked for before a fetch; after it the consumer's position is past the records."""
    broker = Broker()
    async with running(broker) as lane:
        await until(lane.wants_records)
        budget = lane._shared.budget
        budget.held += 2 * budget.limit
        assert not lane.wants_records()
        broker.end = 5
        lane.feed([record(offset) for offset in range(5)])
        await until(lambda: broker.committed == 5)
        budget.held -= 2 * budget.limit
    assert broker.published == list(range(5))


async def test_a_lane_ends_what_kafka_has_forgotten_to_end_and_begins_behind_it() -> None:
    """With the producer that it has just started."""
    broker = Broker(held=5)
    broker.committed, broker.unsettled, broker.left_open, broker.pending = 2, True, range(2, 4), 4
    async with running(broker):
        await until(lambda: broker.committed == 5)
    assert (broker.published, broker.sinks) == ([2, 3, 4], 1)


async def test_where_that_is_interrupted_all_of_it_is_given_up_and_published_again() -> None:
    """Though a lane had told its place when it had published: Kafka may have given up the offset alone."""
    broker = Broker(held=5)
    async with running(broker) as lane:
        await until(lambda: broker.committed == 5)
        lane.close()
    broker.committed, broker.published = 2, []
    broker.unsettled, broker.left_open = True, range(2, 5)
    broker.failures.append(Retryable("kafka", "dies meanwhile"))
    async with running(broker):
        await until(lambda: broker.committed == 5)
    assert (broker.published, broker.left_open) == ([2, 3, 4], range(0))


@pytest.mark.parametrize("answers", [True, False])
async def test_where_all_of_it_is_ended_a_lane_begins_where_it_had_published_to(
    answers: bool,
) -> None:
    """Though what hung was of long ago: a coordinator that has forgotten what came after is not believed.

    Nor where the lane that has ended it comes to no beginning.
    """
    broker, taken = Broker(held=25), Taken()
    async with running(broker) as lane:
        await until(lambda: broker.committed == 25)
        lane.close()
    broker.committed, broker.unsettled, broker.pending, broker.end = 8, True, 10, 26
    broker.unanswered = [] if answers else [Retryable("kafka", "no answer")]
    async with running(broker, taken):
        await until(lambda: broker.committed == 26)
    assert taken.offsets == [25]


async def test_no_transaction_begins_before_the_last_one_has_ended() -> None:
    """Else the abort of the second takes along what the first has published."""
    broker = Broker(held=5)
    broker.forgets = True
    async with running(broker) as lane:
        await until(lambda: broker.pending == 5)
        broker.failures.append(Retryable("kafka", "no answer"))
        broker.end = 8
        lane.feed([record(offset) for offset in range(5, 8)])
        await until(lambda: broker.committed == 8)
    assert broker.published == list(range(8))


async def test_a_lane_without_work_ends_what_kafka_has_forgotten_to_end() -> None:
    """It looks once more after each batch: others wait for what it has published."""
    broker = Broker(held=5)
    broker.forgets = True
    async with running(broker):
        await until(lambda: broker.committed == 5)
    assert broker.published == list(range(5))


async def test_a_lane_that_cannot_end_it_waits_for_one_that_can() -> None:
    """As in at_least_once, where a doubt that somebody has left stays."""
    broker = Broker(held=5)
    broker.places.known[HERE] = DOUBTED
    async with running(broker, settles=False) as lane:
        await until(lambda: lane.phase() == "waiting")
        assert broker.places.known[HERE] == DOUBTED
    async with running(broker):
        await until(lambda: broker.committed == 5)


async def test_a_commit_whose_answer_is_lost_is_nothing_to_wait_for() -> None:
    """A lane without work would else say until its next event that Kafka is away."""
    broker = Broker(held=5)
    broker.loses_answer = True
    async with running(broker) as lane:
        await until(lambda: lane.excused)
        await until(lambda: not lane.excused)
        assert lane.idle
    assert broker.published == [*range(5)]


async def test_a_fenced_lane_ends_its_membership_and_never_begins_again() -> None:
    """A new producer in its place would fence the newer owner."""
    broker = Broker(held=5)
    broker.failures = [Fenced("a newer one")]
    async with running(broker) as lane:
        await until(lambda: broker.left)
        await until(lambda: lane.phase() == "fenced")
    assert (broker.published, broker.sinks) == ([], 1)


async def test_a_lane_whose_partition_is_not_owned_any_more_starts_no_producer() -> None:
    """It closes instead."""
    broker = Broker(held=5)
    broker.owned = False
    async with running(broker) as lane:
        await until(lambda: lane.phase() == "closed")
    assert broker.sinks == 0


async def test_a_dependency_that_is_away_is_retried_until_it_is_back() -> None:
    """Meanwhile the lane is excused from progress."""
    broker, calls = Broker(held=5), []

    async def process(records: Sequence[Record]) -> Outcome:
        calls.append(broker.lane.excused)
        if len(calls) < 3:
            raise Retryable("redis", "is away")
        return await passes_on(records)

    async with running(broker, process) as lane:
        await until(lambda: broker.committed == 5)
        assert not lane.excused
    assert calls == [False, True, True]


async def test_closing_gives_up_a_retry_at_once() -> None:
    """What was in flight stays uncommitted, and the next owner gets it."""
    broker = Broker(held=5)

    async def process(records: Sequence[Record]) -> Outcome:
        raise Retryable("redis", "is away")

    async with running(broker, process) as lane:
        await until(lambda: lane.excused)
    assert lane.phase() == "closed"
    assert broker.committed is None


async def test_closing_lets_the_batch_in_flight_finish() -> None:
    """And takes no other."""
    broker, going_on = Broker(held=15), asyncio.Event()

    async def process(records: Sequence[Record]) -> Outcome:
        await going_on.wait()
        return await passes_on(records)

    async with running(broker, process) as lane:
        await until(lambda: lane.phase() == "processing")
        lane.close()
        going_on.set()
        await until(lambda: lane.phase() == "closed")
    assert 0 < len(broker.published) <= 10


async def test_an_offset_outside_the_log_stops_the_lane_until_it_is_moved() -> None:
    """The alert is no end: it looks again by itself."""
    broker = Broker(held=9)
    broker.committed, broker.start = 2, 5
    async with running(broker) as lane:
        await until(lambda: lane.phase() == "stopped")
        assert lane.excused
        assert not lane.wants_records()
        broker.committed = 5
        await until(lambda: broker.committed == 9)


async def test_what_must_not_be_skipped_stops_the_lane() -> None:
    """A dead letter that cannot be written, say."""
    broker = Broker(held=9)
    broker.failures = [Stopped("no")]
    async with running(broker) as lane:
        await until(lambda: lane.phase() == "stopped")
        assert broker.committed is None


async def test_a_position_that_is_lost_is_looked_for_again() -> None:
    """Only the start of a lane may judge an offset."""
    broker = Broker(held=5)
    async with running(broker) as lane:
        await until(lambda: broker.committed == 5)
        broker.start = broker.end = 8
        lane.lose_position()
        await until(lambda: lane.phase() == "stopped")


@pytest.mark.parametrize("ends_at", [4, 6])
async def test_an_outcome_that_would_skip_or_repeat_is_a_defect(ends_at: int) -> None:
    """Nothing of it is published."""
    broker, defects = Broker(held=5), list[Exception]()

    async def process(records: Sequence[Record]) -> Outcome:
        return Outcome([], ends_at)

    async with running(broker, process, defects) as lane:
        await until(lambda: bool(defects))
    assert "IllegalMoveError" in repr(defects[0])
    assert (lane.phase(), broker.published) == ("closed", [])


async def test_a_lane_whose_work_is_cancelled_by_nobody_is_a_defect() -> None:
    """It would end without a word, and its partition would have no lane."""
    broker, defects = Broker(held=5), list[Exception]()

    async def process(_: Sequence[Record]) -> Outcome:
        raise asyncio.CancelledError

    async with running(broker, process, defects) as lane:
        await until(lambda: bool(defects))
    assert (lane.phase(), broker.published) == ("closed", [])
