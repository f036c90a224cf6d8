"""Latency, open loop: from when an event is meant to be sent to when a read_committed reader has its verdict.

Events are sent by the clock, whatever becomes of those before, so that a pause counts for each event it holds up.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests import harness
from tests.bench.runs import PARTITIONS, Bench, Contender
from tests.bench.traffic import Sent
from tests.harness_waiting import until

TICK_S = 0.002
WARM_S = 10
LATE_S = 30.0
"""How long the last events are waited for."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds by percentile, of events after the warm-up, and how many never came."""

    milliseconds: Mapping[str, float]
    events: int
    missing: int


async def run(bench: Bench, contender: Contender, sent: Sequence[Sent], rate: int) -> Latency:
    """The first 10 s are not measured; the worker has all its partitions by then."""
    async with bench.prepared(contender) as (world, worker):
        worker.start()
        await worker.ready()
        try:
            return await _measured(world, sent, rate, WARM_S * rate)
        finally:
            await worker.stop()


async def _measured(world: harness.World, sent: Sequence[Sent], rate: int, warm: int) -> Latency:
    """Sends at so many a second; the first `warm` are not measured.  Ids are distinct."""
    due = {one.id: n for n, one in enumerate(sent)}
    seen: dict[int, float] = {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.kafka,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, linger_ms=0)
    async with consumer, producer:
        consumer.assign([TopicPartition(world.enriched, n) for n in range(PARTITIONS)])
        async with asyncio.TaskGroup() as scope:
            reading = scope.create_task(_read(consumer, due, seen))
            begun = await _send(producer, world.raw, sent, rate)
            with suppress(AssertionError):
                await until(lambda: len(seen) == len(sent), LATE_S)
            reading.cancel()
    took = sorted(1000 * (at - begun - n / rate) for n, at in seen.items() if n >= warm)
    return Latency(_percentiles(took), len(took), len(sent) - len(seen))


async def _send(producer: AIOKafkaProducer, topic: str, sent: Sequence[Sent], rate: int) -> float:
    """When the first was due."""
    begun, done = time.monotonic(), 0
    futures: list[asyncio.Future[object]] = []
    while done < len(sent):
        due = min(len(sent), int((time.monotonic() - begun) * rate) + 1)
        futures += [await producer.send(topic, one.value, one.key) for one in sent[done:due]]
        done = due
        await asyncio.sleep(TICK_S)
    for future in futures:
        await future
    return begun


async def _read(consumer: AIOKafkaConsumer, due: Mapping[str, int], seen: dict[int, float]) -> None:
    while True:
        read = await consumer.getmany(timeout_ms=100)
        now = time.monotonic()
        for records in read.values():
            for record in records:
                number = due.get(json.loads(record.value)["id"])
                if number is not None:
                    seen.setdefault(number, now)


def _percentiles(took: Sequence[float]) -> Mapping[str, float]:
    parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {
        name: round(took[min(len(took) - 1, int(len(took) * part))], 1)
        for name, part in parts.items()
    }
