"""Latency, open loop: from when an event is meant to be sent to when a read_committed reader has its verdict.

Events are sent by the clock, whatever becomes of those before, so that a pause counts for each event it holds up.
"""

import asyncio
import gc
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from processor.bench.contenders import Contender
from processor.bench.program import Program
from processor.bench.runs import Bench
from processor.bench.site import PARTITIONS, Site
from processor.bench.traffic import Sent, org_unit
from tests.harness_waiting import until

TICK_S = 0.002
WARM_S = 20
"""Not measured: a JIT compiler has most of its work behind it by then."""
READY_S = 90.0
LATE_S = 30.0
"""How long the last events are waited for."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds by percentile, of events after the warm-up, and how many never came."""

    milliseconds: Mapping[str, float]
    events: int
    missing: int


async def run(bench: Bench, contender: Contender, sent: Sequence[Sent], rate: int) -> Latency:
    """The first 20 s are not measured; all partitions are served before."""
    async with bench.prepared(contender) as (site, program):
        program.start()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=site.kafka,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        producer = AIOKafkaProducer(bootstrap_servers=site.kafka, linger_ms=0)
        async with consumer, producer:
            consumer.assign([TopicPartition(site.enriched, n) for n in range(PARTITIONS)])
            await _ready(program, site, consumer, producer)
            with _uncollected():
                took = await _measured(site, consumer, producer, sent, rate)
        await program.stop()
    return took


@contextmanager
def _uncollected() -> Iterator[None]:
    """What measures holds all it sends: a look for cycles among that takes a quarter of a second, and counts for whoever is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _ready(
    program: Program, site: Site, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer
) -> None:
    """Returns when an event of each partition has come out, one that enters a window: from then on windows are as in a worker that has
    run for long.
    """
    for number in range(PARTITIONS):
        await producer.send_and_wait(site.raw, _probe(number), b"probe", partition=number)
    seen: set[str] = set()

    async def all_seen() -> bool:
        program.check()
        for records in (await consumer.getmany(timeout_ms=100)).values():
            seen.update(json.loads(record.value)["id"] for record in records)
        return len(seen) == PARTITIONS

    await until(all_seen, READY_S)


def _probe(number: int) -> bytes:
    event = {
        "id": f"probe-{number}",
        "org_unit": org_unit(number),
        "lead_id": f"probe-{number}",
        "event_type": "Email Open",
        "metadata": {"path": "/", "referrer": "", "user_agent": ""},
        "created_at": "2026-01-01T00:00:00.000+00:00",
    }
    return json.dumps(event).encode()


async def _measured(
    site: Site,
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    sent: Sequence[Sent],
    rate: int,
) -> Latency:
    """Sends at so many a second; those of the warm-up are not measured.  Ids are distinct."""
    due = {one.id: n for n, one in enumerate(sent)}
    seen: dict[int, float] = {}
    async with asyncio.TaskGroup() as scope:
        reading = scope.create_task(_read(consumer, due, seen))
        begun = await _send(producer, site.raw, sent, rate)
        with suppress(AssertionError):
            await until(lambda: len(seen) == len(sent), LATE_S)
        reading.cancel()
    warm = WARM_S * rate
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
