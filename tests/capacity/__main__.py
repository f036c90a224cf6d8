"""``make capacity``: what an event costs each part of the system, and what 10,000 to 1,000,000 events a second need.

Starts servers, fills `events.raw`, and lets one worker with the default settings catch up.  The first tenth warms everything up; of the
rest the CPU time of each process is taken, and what Postgres, Valkey and Kafka have kept.  Prints the section of the README.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from processor.bench.used import cpu
from processor.embedded import Stack
from processor.io.kafka_topics import PARTITIONS
from processor.io.migrate import migrate
from tests import harness
from tests.capacity.arithmetic import Costs, rendered
from tests.capacity.traffic import FILTERS, LEADS, events, fill
from tests.capacity.used import Used, held, log_bytes, used
from tests.harness_cluster import cluster_in

POLL_S = 0.5


class Measured:
    """A world on servers of its own, and the processes of each part."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.world = harness.World(stack.kafka, stack.redis, stack.postgres, "capacity")
        self.folder = folder
        self.pids: dict[str, Sequence[int]] = {n: own[:1] for n, own in stack.pids.items()}

    async def prepare(self) -> None:
        """Schema, topics and filters."""
        await migrate(self.world.postgres)
        await self.world.create_topics(PARTITIONS)
        path = self.folder / "filters.yaml"
        path.write_text(FILTERS)
        environment = self.world.environment()
        await asyncio.to_thread(harness.processor, environment, "filters", "apply", str(path))

    async def costs(self, count: int) -> Costs:
        """Of an event, from so many after a tenth as many before."""
        warm, total = count // 10, count // 10 + count
        await fill(self.world, events(range(warm), total))
        before = cpu(self.pids["kafka"])
        await fill(self.world, events(range(warm, total), total))
        filling = (cpu(self.pids["kafka"]) - before) / count
        empty = await held(self.world.redis)
        spent = await self._caught_up(warm, total)
        micros = {part: 1e6 * seconds / spent.events for part, seconds in spent.cpu.items()}
        return Costs(
            worker=round(micros["worker"], 1),
            kafka=round(micros["kafka"] + 1e6 * filling, 1),
            valkey=round(micros["redis"], 1),
            postgres=round(micros["postgres"], 1),
            stored=spent.stored // spent.events,
            wal=spent.wal // spent.events,
            raw=log_bytes(self.folder, self.world.raw) // total,
            enriched=log_bytes(self.folder, self.world.enriched) // total,
            lead=(await held(self.world.redis) - empty) // LEADS,
        )

    async def _caught_up(self, warm: int, total: int) -> Used:
        """What a worker and the servers used from about `warm` events on until all are done."""
        async with _worker(self.world, self.folder) as worker, _database(self.world) as database:
            pids = {**self.pids, "worker": [worker.pid]}
            await _stored(database, warm)
            begun = await used(database, pids)
            print(f"{begun.events:,} events stored, measuring", file=sys.stderr)
            await _stored(database, total)
            await harness.until(lambda: _settled(worker, database), 60)
            return (await used(database, pids)).since(begun)


def main() -> None:
    """Prints the section."""
    parser = argparse.ArgumentParser(prog="make capacity ARGS=...", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--cluster", action="store_true", help="on three Valkeys instead of one")
    asked = parser.parse_args()
    with _servers(cluster=asked.cluster) as measured:
        asyncio.run(measured.prepare())
        costs = asyncio.run(measured.costs(asked.events))
    on = " on a cluster of three Valkeys" if asked.cluster else ""
    about = (
        f"`make capacity` on {os.cpu_count()} cores, {platform.machine()}, which all servers, the worker and the measurement share:"
        f" {asked.events:,} events of {LEADS:,} leads, two velocity filters and a metadata filter, a backlog for one worker with the"
        f" default settings{on}."
    )
    print(rendered(costs, about))


@contextmanager
def _servers(*, cluster: bool) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Stack(folder / "stack", jvm=(), heap="1g") as stack:
            measured = Measured(stack, folder)
            if not cluster:
                yield measured
                return
            with cluster_in(folder / "cluster") as nodes:
                measured.world = harness.World(stack.kafka, nodes.url, stack.postgres, "capacity")
                measured.pids["redis"] = nodes.pids()
                yield measured


@asynccontextmanager
async def _worker(world: harness.World, folder: Path) -> AsyncIterator[harness.Worker]:
    worker = harness.Worker(world.environment(), folder / "worker.log")
    worker.start()
    try:
        yield worker
    finally:
        worker.kill()


@asynccontextmanager
async def _database(world: harness.World) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world.postgres)
    try:
        yield connection
    finally:
        await connection.close()


async def _stored(database: asyncpg.Connection, events: int) -> None:
    """Returns when there are so many, by statistics that cost nothing."""
    inserted, stored = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'events'", 0
    while stored < events:
        await asyncio.sleep(POLL_S)
        stored = await database.fetchval(inserted) or 0


async def _settled(worker: harness.Worker, database: asyncpg.Connection) -> bool:
    """Whether everything is published, and all that was stored is counted."""
    lag = [value for name, value in (await worker.metrics()).items() if "_lag_records" in name]
    counted = await database.fetchval("SELECT count(*) = 0 FROM event_count_changes")
    return bool(counted) and sum(lag) == 0


if __name__ == "__main__":
    main()
