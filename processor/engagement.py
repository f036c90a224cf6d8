"""`processor engagement`: counts what is organic on the enriched topic, and tells of it, until SIGTERM.

`enriched_reader` reads the topic with Faust, `pure.engagement` decides, `io.engagement_store` keeps; here is what holds a process together.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from processor import telemetry
from processor.engagement_watch import LOOK_S, Watch
from processor.enriched_reader import Reader
from processor.failures import Retryable, Stopped
from processor.io.ending import exit_now
from processor.io.engagement_outbox import Outbox
from processor.io.engagement_store import Applied, Place, Store
from processor.io.kafka import Cluster, at_start, translated
from processor.io.kafka_topics import require_topics
from processor.io.migrate import check
from processor.io.postgres import Postgres
from processor.pure.engagement import Rules
from processor.pure.places import Delivered, in_parts
from processor.pure.surges import SurgeRule
from processor.settings import Settings
from processor.waits import Waits

log = structlog.get_logger(__name__)

RETRY_S = 0.5
JOIN_S = 10.0
LEAVE_S = 12.0
LAST_WORDS_S = 5.0
UNWATCHED_S = 60.0


def main(settings: Settings) -> int:
    """The exit code: 0 after a drain, 1 after a defect, or where going on would lose or guess.  Raises `StartRefused`."""
    telemetry.configure_logging(settings.log_format)
    for name in ("faust", "mode", "processor.enriched_reader"):  # Faust logs as whoever extends it
        logging.getLogger(name).setLevel(logging.WARNING)
    return asyncio.run(serve(settings))


async def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT; a second signal abandons everything at once."""
    cluster = Cluster(settings)
    async with at_start(cluster) as admin:
        await require_topics(admin, [settings.enriched_topic, settings.engagement_topic])
    async with _postgres(settings) as postgres:
        store = Store(postgres, settings.enriched_topic, rules(settings))
        service = Engagement(cluster, store)
        _on_signals(service)
        async with telemetry.serving(settings.metrics_port, service.dead, service.unready):
            code = await service.run()
    if service.abandoned:
        exit_now(code)
    return code


def rules(settings: Settings) -> Rules:
    """What counts how much."""
    surge = SurgeRule(settings.surge_types, settings.surge_threshold, settings.surge_window_ms)
    return Rules(settings.engagement_weights, surge)


class Engagement:
    """One process of the group."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store
        self._outbox = Outbox(cluster, store)
        self._waits = Waits()
        self._watch = Watch(cluster.settings.enriched_topic, store.places, self._waits)
        self._stopping = asyncio.Event()
        self._defect: BaseException | None = None
        self._reader: Reader | None = None
        self.abandoned = False
        """Faust has not ended: what it leaves behind keeps a process from ending by itself."""

    async def run(self) -> int:
        """Until `stop`; the exit code."""
        async with asyncio.TaskGroup() as scope:
            jobs = [scope.create_task(self._beside(job)) for job in (self._tell, self._look)]
            while not self._stopping.is_set():
                await self._membership()
                await self._pause()
            for job in jobs:
                job.cancel()
        await self._last_words()
        return self._told_end()

    def _told_end(self) -> int:
        """The last line, and the exit code."""
        if self._defect is None:
            log.info("engagement_drained")
            return 0
        if isinstance(self._defect, Stopped):  # an operator's matter: the reason says what to do
            log.error("engagement_failed", reason=str(self._defect))
        else:
            log.error("engagement_failed", exc_info=self._defect)
        return 1

    def stop(self) -> None:
        """The batch in flight is finished or undone, nothing else begins."""
        self._stopping.set()

    def dead(self) -> Sequence[str]:
        """Why only another process can help: nobody looks at what is counted any more, or a drain does not end."""
        silent = self._watch.silent_s()
        return [f"no look at the partitions for {silent:.0f} s"] if silent > UNWATCHED_S else []

    def unready(self) -> Sequence[str]:
        """Why nothing is counted just now."""
        reasons = [f"{name} is away for {s:.0f} s" for name, s in self._waits.away.items()]
        if self._reader is None or not self._reader.joined:
            reasons.append("has not joined the consumer group")
        return reasons

    async def take(self, delivered: Sequence[Delivered]) -> None:
        """Counts a batch; returns when it is counted, or when the process is asked to end."""
        try:
            for part in in_parts(delivered):
                applied = await self._applied(part)
                if applied is None:
                    break
                self._note(applied)
                if self._reader is not None:
                    await self._reader.go_back({p: applied.places[p] for p in applied.torn})
        except Exception as error:
            self.fail(error)

    async def opened(self, topic_id: bytes, begins: Mapping[int, int]) -> Mapping[int, Place]:
        """As the store's, whatever it takes."""
        while True:
            try:
                places = await self._store.opened(topic_id, begins)
            except Retryable as failure:
                self._waits.begin("places", failure)
                await asyncio.sleep(RETRY_S)
            else:
                self._waits.over("places")
                return places

    async def _applied(self, delivered: Sequence[Delivered]) -> Applied | None:
        while not self._stopping.is_set():
            try:
                applied = await self._store.apply(delivered)
            except Retryable as failure:
                self._waits.begin("batch", failure)
                await self._pause()
            else:
                self._waits.over("batch")
                return applied
        return None

    def _note(self, applied: Applied) -> None:
        if applied.taken:  # what is delivered again and again is no progress
            telemetry.BATCH_EVENTS.observe(applied.taken)
        telemetry.ENGAGEMENT_EVENTS.inc(applied.counted)
        telemetry.ENGAGEMENT_FOREIGN.inc(len(applied.foreign))
        telemetry.ENGAGEMENT_TORN.inc(len(applied.torn))
        for record, reason in applied.foreign[:1]:
            log.warning(
                "foreign_records",
                number=len(applied.foreign),
                partition=record.partition,
                first_offset=record.offset,
                reason=reason,
            )
        if applied.told:
            self._outbox.wake()

    async def _membership(self) -> None:
        """A group membership, from joining to leaving; Faust's trouble with Kafka ends it, and another one follows."""
        reader = Reader(self._cluster, self)
        try:
            async with translated(JOIN_S):
                await reader.start()
            self._reader = reader
            self._waits.over("group")
            await self._either(reader)
        except Retryable as failure:
            self._waits.begin("group", failure)
        except Exception as error:
            self.fail(error)
        self._reader = None
        await self._left(reader)

    async def _left(self, reader: Reader) -> None:
        """Waits until it has left; Faust may wait for Kafka without end, and does not let itself be cancelled."""
        leaving = asyncio.ensure_future(reader.stop())
        _, late = await asyncio.wait({leaving}, timeout=LEAVE_S)
        error = TimeoutError("Faust has not ended") if late else leaving.exception()
        self.abandoned = error is not None
        if error is None:
            return
        log.warning("reader_abandoned", exc_info=error)
        if not self._stopping.is_set():
            self.fail(error)

    async def _either(self, reader: Reader) -> None:
        """Returns when the process is asked to end; raises `Retryable` where the reader ends before."""
        waiting = {
            asyncio.ensure_future(self._stopping.wait()),
            asyncio.ensure_future(reader.wait_until_stopped()),
        }
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not self._stopping.is_set():
            raise Retryable("kafka", f"the reader ended: {reader.crash_reason!r}")

    async def _tell(self) -> None:
        while True:
            try:
                await self._outbox.publish()
                self._waits.over("outbox")
                await self._outbox.rest()
            except Retryable as failure:
                self._waits.begin("outbox", failure)
                await asyncio.sleep(RETRY_S)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            reader = self._reader
            lost = await self._watch.look(reader)
            if reader is not None:
                await reader.go_back(lost)

    async def _beside(self, job: Callable[[], Awaitable[None]]) -> None:
        """Runs until it is cancelled."""
        try:
            await job()
        except Exception as error:
            self.fail(error)

    async def _last_words(self) -> None:
        """What is not told now is told by the next process."""
        with suppress(Retryable, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._outbox.publish()
        await self._outbox.close()

    def fail(self, error: BaseException) -> None:
        """Ends the process, in order."""
        self._defect = self._defect or error
        self.stop()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self._stopping.wait()


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[Postgres]:
    postgres = await Postgres.connect(settings.database_url.get_secret_value(), size=4)
    try:
        await check(postgres)
        yield postgres
    finally:
        await postgres.close()


def _on_signals(service: Engagement) -> None:
    received: list[int] = []

    def receive(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        log.info("engagement_drains", signal=signal.Signals(number).name)
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, receive, number)
