"""A lane at work: takes what was fetched for its partition, has it processed, publishes, again.

All decisions about what may follow what are in `processor.pure.lane`; here is what awaits.  A lane
retries its dependencies until it is closed, begins again after every failure on Kafka, and never
leaves its membership: a lane of a later assignment is another object with its own producer.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog
from structlog.contextvars import bound_contextvars
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from processor import inbox, places, telemetry
from processor.behind import Behind
from processor.endings import Ending
from processor.failures import Fenced, Retryable, Stopped, Unsettled
from processor.io.ending import gave_up
from processor.io.kafka import Partition
from processor.lane_ports import Shared, Sink, Source
from processor.pure import lane as rules
from processor.pure.types import Outcome, Record

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


class Lane:
    """One assigned partition."""

    def __init__(self, partition: Partition, source: Source, shared: Shared) -> None:
        tuning = shared.tuning
        bounds = inbox.Bounds(
            records=tuning.batch_records,
            weight=tuning.batch_bytes,
            record_weight=tuning.record_bytes,
            first_records=min(tuning.first_batch_records, tuning.batch_records),
        )
        self.partition = partition
        self.state = rules.Lane()
        self.inbox = inbox.Inbox(bounds, shared.budget)
        self._behind = Behind(partition)
        self._ending = Ending(self.inbox.fail)
        self._place = places.Own(partition, source, shared.places)
        self._source = source
        self._shared = shared
        self._closing = asyncio.Event()
        self._failures = 0
        self._unpublished = False
        self._retrying = AsyncRetrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_exponential(FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            stop=lambda _: self._closing.is_set(),
            sleep=self._pause,
            before_sleep=self._waits_for,
            reraise=True,
        )

    async def run(self) -> None:
        """Until the lane is closed or fenced; a defect closes it too and is reported."""
        with bound_contextvars(topic=self.partition.topic, partition=self.partition.partition):
            try:
                while await self._lives():
                    pass
                await self._place.keep()
            except Exception as error:
                self._shared.defect(error)
            except asyncio.CancelledError:
                if gave_up():
                    self._shared.defect(RuntimeError("what the lane waited for was cancelled"))
                raise
            finally:
                self.state = rules.fail(rules.close(self.state))
                self.inbox.clear()
                self._goes_on()
                self._behind.end()
                telemetry.STOPPED_LANES.remove(*self.partition)

    def phase(self) -> rules.Phase:
        """Where it stands now; any await may change it."""
        return self.state.phase

    def wants_records(self) -> bool:
        """Whether records fetched now will be taken, and there is room for them."""
        return rules.wants_records(self.state) and self.inbox.has_room

    def feed(self, records: Sequence[Record]) -> None:
        """Adds what was fetched next."""
        if rules.wants_records(self.state) and not self.inbox.broken:
            self.inbox.put(records)

    def lose_position(self) -> None:
        """Begins again after the batch in flight: only its start may judge an offset."""
        self.inbox.fail(Retryable("kafka", "the offset to read from is not in the log"))

    def reads(self, topic: bytes) -> None:
        """Begins again where its topic is another one by now; what it has of that may be from behind the beginning."""
        if rules.wants_records(self.state) and self._place.left(topic):
            self.inbox.clear()
            self.inbox.fail(Retryable("kafka", "the topic was created again"))

    def tell(self, lag: int | None) -> None:
        """How far behind it is, as metrics; `lag` is None where nobody knows."""
        self._behind.holds(self.inbox.oldest_ms)
        self._behind.tell(lag)

    def close(self) -> None:
        """The batch in flight is the last one; what it waits for is given up."""
        self.state = rules.close(self.state)
        self._closing.set()
        self.inbox.close()

    @property
    def _processing(self) -> tuple[str, Partition]:
        """Who waits for what processing needs; the lane itself waits for Kafka."""
        return "processing", self.partition

    @property
    def idle(self) -> bool:
        """Everything that was fetched is committed."""
        return self.phase() == "ready" and self.inbox.empty

    @property
    def excused(self) -> bool:
        """No progress is expected: stopped with an alert, or something it needs is away."""
        return (
            self.phase() == "stopped"
            or self.partition in self._shared.waits
            or self._processing in self._shared.waits
        )

    async def _lives(self) -> bool:
        """One producer, from its start to its end; whether there may be another one."""
        self.state = rules.begin(self.state, owned=self._source.owns(self.partition))
        if self.phase() != "starting":
            return False
        await self._with_producer()
        if self.phase() == "stopped":
            await self._until_mended()
        elif self.phase() == "waiting":
            await self._pause(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures))
        return self.phase() == "waiting"

    async def _with_producer(self) -> None:
        sink = self._shared.open_sink(self.partition, self._source)
        try:
            await sink.start()
            await self._position(sink, await self._bounds(sink))
            while self.phase() == "ready":
                await self._batch(sink)
        except Retryable as failure:
            self._failed(failure)
        except Fenced as failure:
            log.warning("lane_fenced", reason=str(failure))
            telemetry.FENCED.inc()
            self.state = rules.fence(self.state)
            self._source.leave()
        except Stopped as failure:
            self._stopped(str(failure))
        finally:
            self._ending.forget()
            self._behind.holds(self.inbox.oldest_ms)
            self.inbox.clear()
            await sink.discard()

    async def _bounds(self, sink: Sink) -> rules.Bounds:
        try:
            bounds = await self._place.bounds()
        except Unsettled:
            if not sink.settles or self._closing.is_set():
                raise
            # Whoever is interrupted here leaves the batch to be published once more: no place may say that it is.
            former = await self._place.doubt()
            await sink.settle()
            await self._place.believe(former)
            bounds = await self._place.bounds()
            log.warning("transaction_settled", offset=bounds.committed)
        else:
            if self._place.doubted:
                await sink.drop()
        return bounds

    async def _position(self, sink: Sink, bounds: rules.Bounds) -> None:
        begun = rules.position(self.state, bounds)
        if begun.phase == "ready":
            # Else whoever begins before the first batch is published would believe the old offset.
            if bounds.stale:
                await self._publish(sink, Outcome([], begun.offset))
            await self._place.begin(bounds, begun.offset)
            if begun.offset >= self.state.upto:  # it was committed, and only the answer was lost
                self._unpublished = False
        # Nothing may be awaited from here to the seek: what is fetched for a lane that is ready is taken.
        self.state = rules.position(self.state, bounds)
        self._behind.at(self.state.offset)
        if self.state.phase == "stopped":
            self._stopped(_outside(self.partition, self.state.offset, bounds))
        elif self.state.phase == "ready":
            self._source.seek(self.partition, self.state.offset)
            if not self._unpublished:
                self._shared.waits.over(self.partition)
            if bounds.published is not None:
                log.warning("group_offset_forgotten", committed=bounds.committed)
            log.info("lane_ready", offset=self.state.offset)

    async def _batch(self, sink: Sink) -> None:
        await self.inbox.filled()
        async with self._shared.turns.turn():
            await self._work(sink)

    async def _work(self, sink: Sink) -> None:
        records = await self.inbox.take()
        if not records:
            return
        self.state = rules.take(self.state, records[0].offset, records[-1].offset + 1)
        process = self._shared.processes[self.partition.topic]
        outcome: Outcome = await self._retrying(process, records)
        self._shared.waits.over(self._processing)
        # The abort of this transaction would be the end of the last one too, were that forgotten.
        await self._ending.has_come()
        self.state = rules.publish(self.state, outcome.next_offset)
        with telemetry.stage("publish"):
            await self._publish(sink, outcome)
        self.state = rules.commit(self.state)
        self._published(records)

    async def _publish(self, sink: Sink, outcome: Outcome) -> None:
        await sink.publish(outcome)
        if sink.settles:
            self._ending.begin(self._source.settled(self.partition))

    def _published(self, records: Sequence[Record]) -> None:
        self._failures = 0
        self._unpublished = False
        self.inbox.done()
        self._behind.at(self.state.offset)
        self._place.published(records)
        self._shared.waits.over(self.partition)
        telemetry.BATCH_EVENTS.observe(len(records))
        telemetry.published(record.timestamp for record in records)

    def _failed(self, failure: Retryable) -> None:
        self._shared.waits.begin(self.partition, failure)
        self._failures = min(self._failures + 1, 10)
        self._unpublished = self._unpublished or self.state.phase == "publishing"
        self.state = rules.fail(self.state)

    def _goes_on(self) -> None:
        self._shared.waits.over(self.partition)
        self._shared.waits.over(self._processing)

    def _stopped(self, reason: str) -> None:
        self.state = rules.stop(self.state)
        log.error("lane_stopped", reason=reason)
        telemetry.STOPPED_LANES.labels(*self.partition).set(1)
        self._goes_on()

    async def _until_mended(self) -> None:
        while self.phase() == "stopped":
            await self._pause(self._shared.tuning.recheck_ms / 1000)
            with suppress(Retryable):
                bounds = await self._place.bounds()
                self.state = rules.resume(self.state, bounds)
        telemetry.STOPPED_LANES.labels(*self.partition).set(0)
        log.info("lane_resumes", phase=self.state.phase)

    def _waits_for(self, attempt: RetryCallState) -> None:
        error = attempt.outcome and attempt.outcome.exception()
        if isinstance(error, Retryable):
            self._shared.waits.begin(self._processing, error)

    async def _pause(self, seconds: float) -> None:
        """Ends early when the lane closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()


def _outside(partition: Partition, offset: int, bounds: rules.Bounds) -> str:
    return (
        f"offset {offset} of {partition.topic}/{partition.partition} is next, but the"
        f" topic holds {bounds.start} to {bounds.end}; `processor offsets reset --topic"
        f" {partition.topic} --partition {partition.partition} --to earliest` (or latest, or an"
        " offset) goes on knowing that what is missing is lost"
    )
