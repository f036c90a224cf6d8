"""The worker: joins the group, runs a lane for every partition it is given, drains, leaves.

What lanes do with records is composed from outside; here is only what holds a worker together:
the start and what it refuses, the memberships one after the other, signals and the exit code.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import NoReturn, TypeAlias

import structlog
from msgspec import Struct

from processor import telemetry
from processor.failures import Retryable
from processor.inbox import Budget
from processor.io.ending import then_exit
from processor.io.kafka import DEFAULT_TUNING, Cluster, Partition, Tuning, at_start
from processor.io.kafka_batches import TooLarge
from processor.io.kafka_group import Group
from processor.io.kafka_sink import Idempotent, Outlet, Transactional
from processor.io.kafka_topics import Limits, require_topics
from processor.lane_ports import Process, Shared, Sink
from processor.lanes import Lane
from processor.places import Places
from processor.settings import Settings
from processor.turns import Turns
from processor.waits import Waits
from processor.watch import Watch

log = structlog.get_logger(__name__)

REJOIN_S = 0.5
BACKGROUND_PAUSE_S = 2.0
UNWATCHED_S = 60.0
"""Longer than a look at the lanes takes while Kafka is silent, and than a drain."""

Job: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
"""Is given what to call whenever all it needs has answered: after a `Retryable` it is said to wait until then."""
OpenSink: TypeAlias = Callable[[Outlet, Partition, Group[Lane]], Sink]


class Work(Struct, frozen=True):
    """What a worker does."""

    processes: Mapping[str, Process]
    """By input topic."""
    too_large: TooLarge
    places: Places
    background: Sequence[Job] = ()
    """Run beside the lanes until the worker stops.  `Retryable`: again after a pause; another end by an exception ends the worker."""


Compose: TypeAlias = Callable[[Settings, Limits], AbstractAsyncContextManager[Work]]


def main(settings: Settings) -> NoReturn:
    """Ends the process: 0 after a drain, 1 after a defect.  Raises `StartRefused`."""
    from processor.composition import composed  # noqa: PLC0415  # it imports what a worker does from here

    telemetry.configure_logging(settings.log_format)
    rarely_collect()
    asyncio.run(then_exit(serve(settings, composed)))


def rarely_collect() -> None:
    """A batch is many short-lived objects and no cycle: looking for cycles as often as by default takes a third of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def open_sink(outlet: Outlet, partition: Partition, group: Group[Lane]) -> Sink:
    """The sink of the guarantee that is set."""
    if outlet.cluster.settings.processing_guarantee == "exactly_once":
        return Transactional(outlet, partition)
    return Idempotent(outlet, partition, group.commit)


async def serve(
    settings: Settings,
    compose: Compose,
    tuning: Tuning = DEFAULT_TUNING,
    sinks: OpenSink = open_sink,
) -> int:
    """Runs a worker until SIGTERM or SIGINT; a second signal abandons everything at once."""
    cluster = Cluster(settings, tuning)
    limits = Limits(cluster, [settings.enriched_topic, settings.dead_topic])
    async with at_start(cluster) as admin:
        await require_topics(admin, [settings.raw_topic, settings.merge_topic, *limits.topics])
        await limits.read(admin)
    async with compose(settings, limits) as work:
        outlet = Outlet(cluster, limits, work.too_large)
        worker = Worker(work, outlet, sinks)
        _on_signals(worker)
        async with telemetry.serving(settings.metrics_port, worker.dead, worker.unready):
            return await worker.run()


class Worker:
    """One process of the consumer group."""

    def __init__(self, work: Work, outlet: Outlet, sinks: OpenSink) -> None:
        tuning = outlet.cluster.tuning
        self._work = work
        self._outlet = outlet
        self._sinks = sinks
        self._waits = Waits()
        self._watch = Watch(self._waits, tuning.stall_ms / 1000)
        self._budget = Budget(tuning.held_bytes)
        self._turns = Turns()
        self._stopping = asyncio.Event()
        self._defect: Exception | None = None
        self._group: Group[Lane] | None = None

    async def run(self) -> int:
        """Until `stop`; the exit code."""
        async with asyncio.TaskGroup() as scope:
            jobs = [scope.create_task(self._beside(job)) for job in self._work.background]
            try:
                while not self._stopping.is_set():
                    await self._membership()
                    await self._pause(REJOIN_S)
            except Exception as error:
                self._fails(error)
            for job in jobs:
                job.cancel()
        if self._defect:
            log.error("worker_failed", exc_info=self._defect)
            return 1
        log.info("worker_drained")
        return 0

    def stop(self) -> None:
        """Drain: batches in flight finish or are abandoned, nothing else begins."""
        self._watch.drain()
        self._stopping.set()
        if self._group:
            self._group.leave()

    def dead(self) -> Sequence[str]:
        """Why only another process can help: nobody looks after the lanes any more, or a drain does not end."""
        silent = self._watch.silent_s()
        return [f"no look at the lanes for {silent:.0f} s"] if silent > UNWATCHED_S else []

    def unready(self) -> Sequence[str]:
        """Why the worker does not do its work just now."""
        reasons = [f"{name} is away for {s:.0f} s" for name, s in self._waits.away.items()]
        if self._group is None or not self._group.joined:
            return [*reasons, "has not joined the consumer group"]
        lanes = self._group.lanes.values()
        stopped = [lane.partition for lane in lanes if lane.state.phase == "stopped"]
        return [*reasons, *(f"lane {p.topic}/{p.partition} is stopped" for p in stopped)]

    async def _membership(self) -> None:
        group = Group(self._outlet.cluster, list(self._work.processes), self._lane)
        self._group = group
        if self._stopping.is_set():
            group.leave()
        self._watch.tended()  # where Kafka refuses connections, memberships end before they are looked at
        async with asyncio.TaskGroup() as scope:
            watching = scope.create_task(self._watched(group))
            try:
                await group.run()
            except Retryable as failure:
                self._waits.begin("group", failure)
            finally:
                watching.cancel()

    async def _watched(self, group: Group[Lane]) -> None:
        try:
            await self._watch.over(group)
        except Exception as error:
            self._fails(error)

    async def _beside(self, job: Job) -> None:
        while not self._stopping.is_set():
            try:
                await job(partial(self._waits.over, job))
            except Retryable as failure:
                self._waits.begin(job, failure)
                await self._pause(BACKGROUND_PAUSE_S)
            except Exception as error:
                self._fails(error)
            else:
                break
        self._waits.over(job)

    def _lane(self, partition: Partition, group: Group[Lane]) -> Lane:
        shared = Shared(
            processes=self._work.processes,
            open_sink=lambda p, _: self._sinks(self._outlet, p, group),
            places=self._work.places,
            waits=self._waits,
            budget=self._budget,
            turns=self._turns,
            tuning=self._outlet.cluster.tuning,
            defect=self._fails,
        )
        return Lane(partition, group, shared)

    def _fails(self, error: Exception) -> None:
        """Nobody knows how to handle it: the process ends, the other lanes in order."""
        self._defect = self._defect or error
        self.stop()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _on_signals(worker: Worker) -> None:
    received: list[int] = []

    def receive(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        log.info("worker_drains", signal=signal.Signals(number).name)
        worker.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, receive, number)
