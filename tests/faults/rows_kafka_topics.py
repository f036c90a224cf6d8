"""Topics change under the workers: limits, offsets that are gone, partitions that are added, a dead letter topic that takes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain

from aiokafka.admin import NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete

from processor.io.kafka import Partition
from processor.io.kafka_offsets import reset_offset
from tests import harness
from tests.e2e.operating import configure
from tests.faults.broker import administered, caught_up, lane, send_own
from tests.faults.field import PARTITIONS, Field
from tests.faults.matrix import Bitten, row
from tests.faults.promise import Promise
from tests.faults.proxy import PRODUCE, Fate
from tests.faults.steps import goes_on

LOWERED = 16_384
OVERSIZE = 24_000
APPEAR_S = 15.0
KEPT = 100
"""Records behind the committed offset that are deleted with those before it."""
WAITS_S = 4.0


@asynccontextmanager
async def configured(field: Field, topic: str, **configs: str) -> AsyncIterator[None]:
    """The topic is set up so while the block runs, and as Kafka would have it by default afterwards."""
    await configure(field.world, topic, **configs)
    try:
        yield
    finally:
        await configure(field.world, topic)


@row("enriched topic takes only 16 KB, events of 24 KB among the others")
async def oversize(field: Field) -> Bitten:
    """Stored, and a dead letter of stage publish instead of a message; the producer is made anew."""
    await field.start(2)
    lowered = configured(field, field.world.enriched, max_message_bytes=str(LOWERED))
    async with field.sending(rate=500), lowered:
        big = [await send_own(field, n, f"big-{n}", 5, OVERSIZE) for n in range(PARTITIONS)]
        field.promise = Promise(unpublishable=frozenset(chain(*big)))
        await caught_up(field)
        letters = await harness.read_topic(field.world.kafka, field.world.dead)
    field.heal()
    stages = [json.loads(letter.value or b"")["stage"] for letter in letters]
    return Bitten(stages.count("publish"), "dead letters of events too large")


@row("records behind the committed offset deleted while no worker runs")
async def out_of_range(field: Field) -> Bitten:
    """The lane stops and says so, the others go on; it takes up where an operator says, knowing what is lost."""
    await field.start(2)
    source = Partition(field.world.raw, 0)
    async with field.sending(field.events + KEPT):
        await goes_on(field)
        await caught_up(field)
        for worker in field.workers:
            assert await worker.stop() == 0
        at = await lane(field, 0)
        assert at > 0, "nothing is committed: nothing can be behind it"
        await harness.until(lambda: field.history.ends()[tuple(source)] > at + KEPT, 30)
        async with administered(field) as admin:
            await admin.delete_records({source: RecordsToDelete(at + KEPT)})
        lost = field.history.forget(source.topic, 0, at, at + KEPT)
        field.launch()
        await harness.until(partial(_stopped, field, source), 60)
        await caught_up(field, range(1, PARTITIONS))
        assert await lane(field, 0) == at, "records were skipped without a word"
        await reset_offset(field.world.settings(), source.topic, source.partition, "earliest")
        await field.workers[-1].ready(30)
    field.heal()
    return Bitten(lost, "records lost, as the operator was told")


async def _stopped(field: Field, source: Partition) -> bool:
    """Readiness, the metric that the alert watches, and the log agree."""
    worker = field.workers[-1]
    status, body = await worker.get("/readyz")
    name = f'processor_stopped_lanes{{partition="{source.partition}",topic="{source.topic}"}}'
    told = status == 503 and f"lane {source.topic}/{source.partition} is stopped" in body
    return told and (await worker.metrics()).get(name) == 1 and field.logged("lane_stopped") == 1


@row("two partitions added to the raw topic")
async def added(field: Field) -> Bitten:
    """Lanes for them appear within seconds; leads of theirs only, since a lead that moves has no order."""
    await field.start(2)
    async with field.sending():
        async with administered(field) as admin:
            await admin.create_partitions({field.world.raw: NewPartitions(PARTITIONS + 2)})
        new = range(PARTITIONS, PARTITIONS + 2)
        for number in new:
            await send_own(field, number, f"new-{number}", 500)
        await caught_up(field, new, APPEAR_S)
    field.heal()
    begun = sum([await lane(field, number) > 0 for number in new])
    return Bitten(begun, f"lanes within {APPEAR_S:.0f} s")


@row("dead letter topic cannot be reached for a while")
async def dead_end(field: Field) -> Bitten:
    """Lanes with a bad message wait, say so and never skip it."""
    path = await field.through("kafka")
    await field.start(2)
    async with field.sending(rate=500):
        await caught_up(field)
        path.judge = partial(_to_dead, field.world.dead.encode())
        await harness.until(partial(_waits, field), 30)
        await asyncio.sleep(WAITS_S)
        before = [await lane(field, number) for number in range(PARTITIONS)]
        await asyncio.sleep(WAITS_S)
        after = [await lane(field, number) for number in range(PARTITIONS)]
        letters = await harness.read_topic(field.world.kafka, field.world.dead)
        places = {_place(letter.value) for letter in letters}
        skipped = [b for b in field.history.bad() if b.offset < after[b.partition]]
        assert {bad.place for bad in skipped} <= places, "a bad message was skipped"
        field.heal()
    held = sum(now == then for now, then in zip(after, before, strict=True))
    return Bitten(held, "lanes held up")


def _to_dead(topic: bytes, key: int, frame: bytes) -> Fate:
    return Fate.CUT if key == PRODUCE and topic in frame else Fate.PASS


async def _waits(field: Field) -> bool:
    """Every worker says that it is not ready, and why."""
    answers = [await worker.get("/readyz") for worker in field.workers]
    return all(status == 503 and "kafka is away" in body for status, body in answers)


def _place(letter: bytes | None) -> tuple[str, int, int]:
    said = json.loads(letter or b"")
    return said["topic"], said["partition"], said["offset"]
