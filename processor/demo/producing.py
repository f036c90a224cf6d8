"""The producer: samples of the traffic, sent at the pace of a busy website."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias

from processor.demo.ledger import Place, Sent, sent
from processor.demo.traffic import Sample
from processor.failures import Retryable
from processor.io.kafka import Cluster, translated
from processor.settings import Settings

BUSY, WAVE, WAVE_S = 400, 120, 17
"""Events a second, how far it goes up and down, and how long that takes."""
TICK_S = 0.025
ANSWER_S = 20.0
LEAVE_S = 0.5
_LARGEST = 512 << 10

Note: TypeAlias = Callable[[Sent], None]


@dataclass
class Counts:
    """What was handed to Kafka; ``wanted`` is what should have been by now."""

    wanted: float = 0.0
    sent: int = 0


class Sender:
    """Sends samples in order and notes each once it is acknowledged."""

    def __init__(self, producer: Any, settings: Settings, note: Note) -> None:
        self._producer = producer
        self._topics = {"raw": settings.raw_topic, "merges": settings.merge_topic}
        self._note = note
        self._open: deque[tuple[Sample, asyncio.Future[Any]]] = deque()
        self.counts = Counts()

    async def send(self, sample: Sample) -> None:
        """Returns when it is on its way."""
        topic = self._topics[sample.topic]
        at = sample.timestamp
        future = await self._producer.send(topic, sample.value, sample.key, timestamp_ms=at)
        self._open.append((sample, future))
        self.counts.sent += 1

    async def flush(self) -> None:
        """Returns when everything is acknowledged and noted; raises `Retryable` where Kafka does not take it."""
        async with translated(ANSWER_S):
            while self._open:
                await self._acknowledged()

    async def take(self) -> None:
        """Notes what is acknowledged by now."""
        while self._open and self._open[0][1].done():
            await self._acknowledged()

    async def _acknowledged(self) -> None:
        sample, future = self._open[0]
        record = await future
        self._open.popleft()
        self._note(sent(sample, Place(record.topic, record.partition, record.offset)))


@asynccontextmanager
async def sending(settings: Settings, note: Note) -> AsyncIterator[Sender]:
    """A `Sender` on a producer of its own."""
    producer = Cluster(settings).producer(_LARGEST, None)
    try:
        async with translated(ANSWER_S):
            await producer.start()
        yield Sender(producer, settings, note)
    finally:
        with suppress(Retryable):
            async with translated(LEAVE_S):
                await producer.stop()


async def produce(sender: Sender, samples: Iterator[Sample], seconds: float) -> None:
    """Sends at a pace that rises and falls, for `seconds`; all is acknowledged when it returns."""
    began = last = monotonic()
    while last - began < seconds:
        async with translated(ANSWER_S):
            await _due(sender, samples)
        await asyncio.sleep(TICK_S)
        now = monotonic()
        # After a pause it goes on, it does not catch up.
        sender.counts.wanted += pace(now - began) * min(now - last, 1.0)
        last = now
    await sender.flush()


async def _due(sender: Sender, samples: Iterator[Sample]) -> None:
    while sender.counts.sent < sender.counts.wanted:
        await sender.send(next(samples))
    await sender.take()


def pace(at: float) -> float:
    """Events a second, `at` seconds after the start."""
    return BUSY + WAVE * math.sin(2 * math.pi * at / WAVE_S)
