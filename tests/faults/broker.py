"""What rows do to the broker, its topics and its group, beside faults of the way there."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from processor.io.kafka import Cluster, Partition, connected
from tests import harness
from tests.faults.evidence import committed
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import Asked, asked
from tests.traffic import Record


@asynccontextmanager
async def administered(field: Field) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, straight to Kafka."""
    async with connected(Cluster(field.world.settings())) as admin:
        yield admin


async def kill_broker(field: Field) -> None:
    """SIGKILL; it serves again when this returns."""
    field.stack.kill("kafka")
    await asyncio.to_thread(field.stack.start_one, "kafka")


def connections(field: Field) -> set[tuple[int, int]]:
    """The process and the port of each end that workers hold of a connection to the broker, as the machine knows them."""
    broker = int(field.world.kafka.rpartition(":")[2])
    return {
        (worker.pid, end.laddr.port)
        for worker in field.workers
        if worker.running
        for end in psutil.Process(worker.pid).net_connections("tcp4")
        if end.raddr and end.raddr.port == broker and end.status == psutil.CONN_ESTABLISHED
    }


async def takes_lanes(field: Field, count: int) -> None:
    """Returns when lanes have begun so many times more, on whatever worker."""
    before = field.logged("lane_ready")
    await harness.until(lambda: field.logged("lane_ready") >= before + count, 60)


async def hijack(field: Field, partition: Partition) -> None:
    """Somebody else starts a producer with the transactional id of a lane."""
    cluster = Cluster(field.world.settings())
    thief = cluster.producer(1 << 14, cluster.transactional_id(partition))
    try:
        await thief.start()
    finally:
        await thief.stop()


async def send_own(
    field: Field, partition: int, name: str, count: int, size: int = 0
) -> list[tuple[str, str]]:
    """So many events of a lead that the load does not know, each with `size` bytes of metadata more; org unit and id of each."""
    wave: list[tuple[Record, Asked | None]] = []
    for number in range(count):
        event = {"org_unit": "acme", "id": f"{name}-{number}", "lead_id": name}
        event["event_type"] = "click"
        body = json.dumps({**event, "metadata": {"pad": "x" * size}}).encode()
        record = Record(partition, time.time_ns() // 1_000_000, name.encode(), body)
        wave.append((record, asked(record)))
    await field.produce(field.world.raw, wave)
    return [("acme", f"{name}-{number}") for number in range(count)]


async def lane(field: Field, number: int) -> int:
    """The group's offset in a partition of the raw topic."""
    place = field.world.raw, number
    return (await committed(field.world, [place]))[place]


async def caught_up(
    field: Field, numbers: Sequence[int] = range(PARTITIONS), seconds: float = 60
) -> None:
    """Returns when all that was sent to these partitions until now is committed."""
    ends = {p: end for p, end in field.history.ends().items() if p[0] == field.world.raw}
    wanted = {place: end for place, end in ends.items() if place[1] in numbers}

    async def there() -> bool:
        found = await committed(field.world, wanted)
        return all(found[place] >= end for place, end in wanted.items())

    await harness.until(there, seconds)


@asynccontextmanager
async def crowded(field: Field, topics: int, partitions: int) -> AsyncIterator[None]:
    """The broker holds so many topics and partitions more while the block runs."""
    names = [f"{field.world.id}.crowd-{number}" for number in range(topics)]
    async with administered(field) as admin:
        await admin.create_topics([NewTopic(name, partitions, 1) for name in names])
    try:
        yield
    finally:
        async with administered(field) as admin:
            await admin.delete_topics(names)


@asynccontextmanager
async def busy(processes: int) -> AsyncIterator[None]:
    """So many processes that do nothing but take processor time."""
    command = sys.executable, "-c", "while True: pass"
    running = [await asyncio.create_subprocess_exec(*command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            await process.wait()
