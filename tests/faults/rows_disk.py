"""Disks that are full: Postgres' and Kafka's.  Both are small file systems in memory, which takes the right to mount one."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import asyncpg

from processor.embedded.journal import free_port
from processor.embedded.processes import owner
from processor.embedded.recipes import FAST_START, Kafka
from processor.embedded.servers import Process
from processor.io.kafka_topics import create_topics
from tests import harness
from tests.faults.field import PARTITIONS, Field
from tests.faults.matrix import Bitten, row
from tests.faults.servers import HEAP, beside
from tests.faults.small_disk import SmallDisk, small_disk
from tests.faults.steps import goes_on, stands_still, unready

POSTGRES_MB = 160
KAFKA_MB = 256
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"


@row("the disk of Postgres full", optional=True)
async def postgres_full(field: Field) -> Bitten:
    """Tables cannot grow: lanes wait and commit no offset, and go on by themselves when there is space."""
    disk = await field.keep(_tablespace(field))
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        disk.fill()
        try:
            await unready(field, "postgres is away")
            await stands_still(field)
        finally:
            disk.free()
        await goes_on(field)
    field.heal()
    assert any("DiskFullError" in worker.output for worker in field.workers)
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@row("the disk of Kafka full", optional=True)
async def kafka_full(field: Field) -> Bitten:
    """A broker that cannot write its log ends itself: lanes wait, and go on when it was started with space."""
    small = await field.keep(_small_kafka(field))
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        small.disk.fill()
        try:
            await harness.until(small.gave_up, 30)
            await unready(field, "kafka is away")
            await stored_no_more(field)
        finally:
            small.disk.free()
            await asyncio.to_thread(small.broker.start)
        await goes_on(field)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@dataclass(frozen=True)
class SmallKafka:
    """A broker of its own on a small disk."""

    broker: Process
    recipe: Kafka
    disk: SmallDisk

    def gave_up(self) -> bool:
        """For want of space."""
        log = (self.recipe.folder / "log").read_text(errors="replace")
        return "No space left on device" in log


async def stored_no_more(field: Field) -> None:
    """Returns when Postgres has taken nothing in for a while: what cannot be published is not followed by more."""
    seen = -1

    async def still() -> bool:
        nonlocal seen
        before, seen = seen, await field.ask("SELECT last_value FROM batches")
        await asyncio.sleep(1)
        return bool(before == seen)

    await harness.until(still, 20)


@asynccontextmanager
async def _tablespace(field: Field) -> AsyncIterator[SmallDisk]:
    """Tables and indexes of the world are on a small disk; the log of the server is not."""
    name = urlsplit(field.world.postgres).path[1:]
    async with small_disk(field.folder / "tablespace", POSTGRES_MB) as disk:
        account = owner()
        if account:
            shutil.chown(disk.path, *account)
        connection = await asyncpg.connect(field.stack.postgres)
        try:
            await connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.path}'")
            await connection.execute(f"ALTER DATABASE {name} SET TABLESPACE small")
            yield disk
        finally:
            await connection.execute(END, name)
            await connection.execute(f"ALTER DATABASE {name} SET TABLESPACE pg_default")
            await connection.execute("DROP TABLESPACE small")
            await connection.close()


@asynccontextmanager
async def _small_kafka(field: Field) -> AsyncIterator[SmallKafka]:
    """The world's topics are on it from now on."""
    folder = field.folder / "kafka"
    recipe = Kafka(folder, free_port(), free_port(), HEAP, FAST_START)
    folder.mkdir()
    async with small_disk(folder / "data", KAFKA_MB) as disk, beside(recipe) as broker:
        field.world = replace(field.world, kafka=broker.url)
        await create_topics(field.world.settings(), PARTITIONS)
        yield SmallKafka(broker, recipe, disk)
