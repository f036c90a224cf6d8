"""One worker over millions of events, and what it and Valkey hold meanwhile."""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import asyncpg
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from processor.embedded import Stack
from processor.io.kafka_topics import PARTITIONS
from processor.io.migrate import migrate
from tests import harness
from tests.bench.growth_traffic import Shape

ROUND = 50_000
AHEAD = 200_000
"""Messages on the topic that are not done yet, at most: a backlog all the time."""
SPAN_MS = 12 * 3_600_000
EVENTS_A_LEAD = 2_000
"""Over the whole run, so that windows are as full as they get long before its half."""
HOT = 0.01
SAMPLE_S = 1.0
IDLE_S = 60.0
"""Without progress."""
LONGEST_S = 600.0
"""For a round."""
_TYPES = ("page_view", "email_open", "email_click", "form_submit", "email_sent", "meeting_booked")
_SHARES = [*accumulate((45, 20, 10, 10, 10, 5))]


class Sample(NamedTuple):
    """After so many events."""

    events: int
    worker_mb: float
    valkey_mb: float


@dataclass
class Memory:
    """A run, and afterwards its database."""

    stack: Stack
    folder: Path
    events: int
    database: str = ""
    seconds: float = 0.0
    _done: int = 0
    _samples: list[Sample] = field(default_factory=list)

    async def run(self) -> Sequence[Sample]:
        """Raises AssertionError where the worker ends or does not go on."""
        name = await asyncio.to_thread(harness.create_database, self.stack.postgres)
        self.database = harness.database_url(self.stack.postgres, name)
        world = harness.World(self.stack.kafka, self.stack.redis, self.database, "memory")
        await migrate(self.database)
        await world.create_topics(PARTITIONS)
        path = self.folder / "filters.yaml"
        path.write_text(json.dumps(Shape().filters()))
        await asyncio.to_thread(
            harness.processor, world.environment(), "filters", "apply", str(path)
        )
        worker = harness.Worker(world.environment(), self.folder / "worker.log")
        worker.start()
        try:
            await self._measured(world, worker)
            await worker.stop()
        finally:
            worker.kill()
        return self._samples

    async def stored(self) -> int:
        """Rows."""
        connection = await asyncpg.connect(self.database)
        try:
            found: int = await connection.fetchval("SELECT count(*) FROM events")
        finally:
            await connection.close()
        return found

    async def _measured(self, world: harness.World, worker: harness.Worker) -> None:
        await worker.ready(60)
        begun, moved = time.monotonic(), time.monotonic()
        async with _topics(world) as topics, asyncio.TaskGroup() as scope:
            scope.create_task(self._produce(world, topics))
            while self._done < self.events:
                assert worker.running, f"it ended:\n{worker.output[-4000:]}"
                assert time.monotonic() < moved + IDLE_S, f"{self._done} messages of {self.events}"
                done = await topics.done()
                moved, self._done = (time.monotonic(), done) if done > self._done else (moved, done)
                self._sample(worker)
                await asyncio.sleep(SAMPLE_S)
        self.seconds = time.monotonic() - begun

    def _sample(self, worker: harness.Worker) -> None:
        pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
        with redis.Redis.from_url(self.stack.redis) as connection:
            used = connection.info("memory")["used_memory"]
        self._samples.append(Sample(self._done, pages * 4096 / 1e6, used / 1e6))

    async def _produce(self, world: harness.World, topics: "_Topics") -> None:
        """In rounds, no further ahead than there is room for; what is done with is deleted."""
        start_ms = time.time_ns() // 1_000_000 - SPAN_MS
        async with AIOKafkaProducer(
            bootstrap_servers=world.kafka, linger_ms=20, max_batch_size=1 << 19
        ) as producer:
            for first in range(0, self.events, ROUND):
                await harness.until(partial(self._has_room, first), LONGEST_S)
                last = min(first + ROUND, self.events)
                messages = made(range(first, last), self.events, start_ms)
                sending = [await producer.send(world.raw, value, lead) for lead, value in messages]
                for each in sending:
                    await each
                await topics.forget()
                print(f"{first:,} sent, {self._samples[-1:]}", file=sys.stderr)

    def _has_room(self, sent: int) -> bool:
        return sent - self._done <= AHEAD


def made(numbers: range, total: int, start_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """Lead and message of these of so many events: ids are new, leads the same all the time, event time goes on evenly."""
    chance, leads = random.Random(numbers.start), max(100, total // EVENTS_A_LEAD)
    for number in numbers:
        lead = 0 if chance.random() < HOT else chance.randrange(leads)
        event_type = chance.choices(_TYPES, cum_weights=_SHARES)[0]
        at = datetime.fromtimestamp((start_ms + number * SPAN_MS // total) / 1000, UTC)
        value = (
            f'{{"id":"evt-{chance.getrandbits(64):016x}-{number}","org_unit":"ou-{lead % 5}","lead_id":"ld_{lead}",'
            f'"event_type":"{event_type}","created_at":"{at.isoformat(timespec="milliseconds")}","metadata":'
            f'{{"path":"/pricing/{number % 97}","referrer":"https://google.com","user_agent":"Mozilla/5.0 (X11)"}}}}'
        )
        yield f"ld_{lead}".encode(), value.encode()


@dataclass(frozen=True)
class _Topics:
    """How far the worker is, and what it no longer needs."""

    world: harness.World
    admin: AIOKafkaAdminClient
    consumer: AIOKafkaConsumer

    async def done(self) -> int:
        """Messages that are committed."""
        return sum((await self._committed()).values())

    async def forget(self) -> None:
        """Deletes what is committed, and all that is published."""
        published = [TopicPartition(self.world.enriched, n) for n in range(PARTITIONS)]
        gone = {**await self._committed(), **await self.consumer.end_offsets(published)}
        await self.admin.delete_records(
            {one: RecordsToDelete(before_offset=offset) for one, offset in gone.items() if offset}
        )

    async def _committed(self) -> dict[TopicPartition, int]:
        raw = [TopicPartition(self.world.raw, n) for n in range(PARTITIONS)]
        found = await self.admin.list_consumer_group_offsets(self.world.group, partitions=raw)
        return {one: max(0, held.offset) for one, held in found.items()}


@asynccontextmanager
async def _topics(world: harness.World) -> AsyncIterator[_Topics]:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=world.kafka, isolation_level="read_committed")
    await admin.start()
    try:
        async with consumer:
            yield _Topics(world, admin, consumer)
    finally:
        await admin.close()
