"""The bytes a worker holds are bounded, and nothing is left out because of that."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer

from processor.io.kafka import Cluster, Partition, Tuning, at_start
from processor.io.kafka_records import HELD
from processor.io.kafka_sink import Outlet
from processor.io.kafka_topics import Limits
from processor.pure.types import Message as Output
from processor.pure.types import Outcome, Record
from processor.worker import Work, Worker, open_sink
from tests.fakes_places import KnownPlaces
from tests.harness import Message, World, produce, until

PARTITIONS = 8
RECORDS = 16_000
HELD_BYTES = 1 << 20
"""A fraction of the backlog: one fetch of all partitions is more."""


def unchanged(message: Output) -> Output:
    """Nothing here is too large."""
    return message


@pytest.mark.timeout(120)
async def test_a_backlog_larger_than_what_may_be_held_is_processed_whole(world: World) -> None:
    """Each record once, in order, whichever partition filled the budget."""
    await world.create_topics(PARTITIONS)
    backlog = [Message(b"x" * 300, partition=n % PARTITIONS) for n in range(RECORDS)]
    await produce(world.kafka, world.raw, backlog)
    reached: Counter[int] = Counter()
    skipped: list[tuple[int, int, int]] = []

    async def process(records: Sequence[Record]) -> Outcome:
        await asyncio.sleep(0)
        for record in records:
            if record.offset > reached[record.partition]:
                skipped.append((record.partition, reached[record.partition], record.offset))
            reached[record.partition] = record.offset + 1
        return Outcome([], records[-1].offset + 1)

    settings = world.settings()
    cluster = Cluster(settings, Tuning(held_bytes=HELD_BYTES))
    limits = Limits(cluster, [world.enriched, world.dead])
    async with at_start(cluster) as admin:
        await limits.read(admin)
    work = Work({world.raw: process, world.merges: process}, unchanged, KnownPlaces())
    worker = Worker(work, Outlet(cluster, limits, unchanged), open_sink)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await until(lambda: reached.total() == RECORDS, 60)
        worker.stop()
    assert running.result() == 0
    assert skipped == []


async def test_what_little_becomes_in_many_partitions_comes_a_bounded_part_at_a_time(
    world: World,
) -> None:
    """All partitions may have it at once: some hundred bytes in Kafka, and 4 MB once they are read."""
    await world.create_topics(PARTITIONS)
    partitions = [Partition(world.raw, number) for number in range(PARTITIONS)]
    async with AIOKafkaProducer(
        bootstrap_servers=world.kafka,
        compression_type="zstd",
        linger_ms=1_000,
        max_batch_size=8 << 20,
        max_request_size=8 << 20,
    ) as producer:
        for number in range(4 * PARTITIONS):
            await producer.send(world.raw, b" " * (1 << 20), partition=number // 4)
        await producer.flush()
    reader = Cluster(world.settings()).reader()
    found = Counter[Partition]()
    async with reader:
        reader.assign(partitions)
        async with asyncio.timeout(30):
            while found.total() < 4 * PARTITIONS:
                fetched = await reader.getmany(*partitions, timeout_ms=100)
                found.update({partition: len(records) for partition, records in fetched.items()})
                assert sum(map(len, fetched.values())) <= HELD >> 20
    assert found == dict.fromkeys(partitions, 4)
