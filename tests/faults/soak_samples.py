"""What a soak looks at every few seconds: memory and connections of every process, from the outside, and how far behind all is."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import psutil
from aiokafka.errors import KafkaError

from tests import harness
from tests.faults.evidence import committed
from tests.faults.field import Field

EVERY_S = 5.0
ANSWER_S = 4.0


class Use(NamedTuple):
    """Of one process: MB, and connections, also half-closed ones."""

    rss_mb: float
    kafka: int
    redis: int
    postgres: int


class Sample(NamedTuple):
    """One look at everything."""

    minute: float
    events: int
    lag: int | None
    """None while Kafka does not answer."""
    uses: Mapping[str, Use]
    """By the name of the process."""


class Samples:
    """Taken as long as `taking` runs."""

    def __init__(self, field: Field, others: Mapping[str, harness.Worker]) -> None:
        self.all: list[Sample] = []
        self._field = field
        self._others = others
        self._started = time.monotonic()
        self._counted = 0
        self._ends: dict[tuple[str, int], int] = {}

    @property
    def minute(self) -> float:
        """Since the start."""
        return (time.monotonic() - self._started) / 60

    async def take(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            lag = await self._lag()
            events = len(self._field.history.sent)
            self.all.append(Sample(round(self.minute, 3), events, lag, self._uses()))

    def _uses(self) -> dict[str, Use]:
        workers = {worker.log.stem: worker for worker in self._field.workers}
        found = {name: self._use(p) for name, p in {**workers, **self._others}.items() if p.running}
        return {name: use for name, use in found.items() if use is not None}

    def _use(self, worker: harness.Worker) -> Use | None:
        try:
            process = psutil.Process(worker.pid)
            there = process.net_connections("tcp")
            rss = process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            return None
        ports = [connection.raddr.port for connection in there if connection.raddr]
        proxies = self._field.proxies
        return Use(round(rss, 1), *(ports.count(proxies[name].port) for name in Use._fields[1:]))

    async def _lag(self) -> int | None:
        sent = self._field.history.sent
        for one in sent[self._counted :]:
            lane = one.topic, one.partition
            self._ends[lane] = max(self._ends.get(lane, 0), one.offset + 1)
        self._counted = len(sent)
        ends = dict(self._ends)
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await committed(self._field.world, ends)
        except (TimeoutError, KafkaError, OSError):
            return None
        return sum(max(0, end - found[lane]) for lane, end in ends.items())


@asynccontextmanager
async def sampled(field: Field, others: Mapping[str, harness.Worker]) -> AsyncIterator[Samples]:
    """Samples of all that runs, taken as long as the block does."""
    samples = Samples(field, others)
    async with asyncio.TaskGroup() as scope:
        taking = scope.create_task(samples.take())
        try:
            yield samples
        finally:
            taking.cancel()
