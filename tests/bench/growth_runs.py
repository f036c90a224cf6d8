"""One point of a series: a worker with its default settings does a backlog, and all that became of it is compared with the brute force.

A first tenth warms everything up.  The rest is put on the topic while the worker is suspended, so that all it costs falls between
two looks.
"""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from processor.bench.traffic import Sent, verdicts
from processor.bench.used import cpu
from processor.embedded import Stack
from processor.io.kafka_topics import create_topics
from processor.io.migrate import migrate
from tests import harness
from tests.bench.growth_past import store
from tests.bench.growth_series import Point
from tests.bench.growth_traffic import Before, shaped

POLL_S = 0.05
LONGEST_S = 600.0
STORED_AGO_MS = 12 * 3_600_000
"""How long before now what is stored ends."""
GAP_MS = 3_600_000
"""Between what is stored and the traffic, where its windows are not lost: longer than any of them."""
_WARM = 10
"""One in so many messages warms up."""
_RAW_END_MS = 60_000
_LATE_MS = 30_000
"""By which the traffic is late."""


@dataclass(frozen=True)
class Measured:
    """What an event took at a point, µs of CPU by part, and how the worker fared."""

    label: str
    x: float
    events: int
    events_s: float
    cpu: Mapping[str, float]
    batch: float
    """Events in a batch, on average, warm-up included."""
    rebuilt: float
    """Windows built from Postgres, of an event."""
    late: float
    """Of the events those judged from Postgres."""
    memory_mb: int
    wrong: int

    @property
    def micros(self) -> float:
        """Of all parts."""
        return sum(self.cpu.values())


@dataclass
class _Stored:
    """The database that has events already: one for all points, filled further from point to point."""

    database: str
    events: int
    newest_ms: int


class Growth:
    """Runs points on one stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._pids = {name: own[0] for name, own in stack.pids.items()}
        self._runs = 0
        self._stored: _Stored | None = None

    async def warm(self) -> None:
        """A run that nobody looks at: Kafka compiles what it does often."""
        await self.run(Point("warm-up", 0))

    async def run(self, point: Point) -> Measured:
        """Raises AssertionError where it does not come to an end."""
        self._runs += 1
        async with self._database(point) as database:
            world = await self._world(point, database)
            sent = await self._traffic(point, database)
            async with _working(world, self._folder) as worker:
                measured = await self._measured(world, worker, point, sent)
            wrong = await _wrong(world, sent)
        await _forget(world)
        return replace(measured, wrong=wrong)

    async def _traffic(self, point: Point, database: str) -> Sequence[Sent]:
        """A tenth of it is the warm-up; ids of all runs differ."""
        start_ms = self._start_ms(point)
        before = await _before(database, point, start_ms)
        sent = shaped(point.shape, point.events, start_ms, self._runs, before)
        if not point.known:
            return sent
        warm = len(sent) // _WARM
        recent = shaped(point.shape, warm, start_ms + point.ago_ms, 1_000_000 + self._runs)
        return [*recent, *sent[: len(sent) - warm]]

    async def _measured(
        self, world: harness.World, worker: harness.Worker, point: Point, sent: Sequence[Sent]
    ) -> Measured:
        warm = len(sent) // _WARM
        async with _watched(world, point.partitions) as watched:
            await _send(world, sent[:warm])
            await _until_done(watched, worker, warm)
            await _until_counted(world)
            worker.send(signal.SIGSTOP)
            await _send(world, sent[warm:])
            before, begun = self._used(worker), time.monotonic()
            worker.send(signal.SIGCONT)
            await _until_done(watched, worker, len(sent))
            took = time.monotonic() - begun
            await _until_counted(world)
            spent = {part: s - before[part] for part, s in self._used(worker).items()}
        events = len(sent) - warm
        told = await worker.metrics()
        return Measured(
            label=point.label,
            x=point.x,
            events=events,
            events_s=events / took,
            cpu={part: 1e6 * seconds / events for part, seconds in spent.items()},
            batch=told["processor_batch_events_sum"] / told["processor_batch_events_count"],
            rebuilt=told["processor_window_rebuilds_total"] / len(sent),
            late=told["processor_late_events_total"] / len(sent),
            memory_mb=_resident_mb(worker.pid),
            wrong=0,
        )

    def _used(self, worker: harness.Worker) -> dict[str, float]:
        servers = {part: cpu([pid]) for part, pid in self._pids.items()}
        return {"worker": cpu([worker.pid]), **servers}

    @asynccontextmanager
    async def _database(self, point: Point) -> AsyncIterator[str]:
        """One with as many events as the point has."""
        if point.stored:
            yield await self._filled(point)
            return
        name = await asyncio.to_thread(harness.create_database, self._stack.postgres)
        database = harness.database_url(self._stack.postgres, name)
        await migrate(database)
        yield database
        await asyncio.to_thread(harness.drop_database, self._stack.postgres, name)

    async def _filled(self, point: Point) -> str:
        kept = self._stored
        if kept is None:
            name = await asyncio.to_thread(harness.create_database, self._stack.postgres)
            kept = _Stored(harness.database_url(self._stack.postgres, name), 0, 0)
            await migrate(kept.database)
            await self._apply(kept.database, point)
        if kept.events < point.stored:
            until_ms = time.time_ns() // 1_000_000 - STORED_AGO_MS
            await store(kept.database, point.stored - kept.events, until_ms)
            kept = replace(kept, events=point.stored, newest_ms=max(until_ms, kept.newest_ms))
        self._stored = kept
        return kept.database

    async def _world(self, point: Point, database: str) -> harness.World:
        harness.flush_redis(self._stack.redis)
        world = harness.World(self._stack.kafka, self._stack.redis, database, f"growth{self._runs}")
        await create_topics(world.settings(), point.partitions)
        await self._apply(database, point)
        await asyncio.to_thread(harness.execute, self._stack.postgres, "CHECKPOINT")
        return world

    async def _apply(self, database: str, point: Point) -> None:
        path = self._folder / "filters.yaml"
        path.write_text(json.dumps(point.shape.filters()))
        environment = {"DATABASE_URL": database}
        await asyncio.to_thread(harness.processor, environment, "filters", "apply", str(path))

    def _start_ms(self, point: Point) -> int:
        """Event time begins here."""
        if not point.stored:
            now = time.time_ns() // 1_000_000
            return now - point.ago_ms - point.events - _RAW_END_MS
        assert self._stored
        begun = self._stored.newest_ms + (0 if point.lost else GAP_MS)
        self._stored.newest_ms = begun + point.events
        return begun


@dataclass
class _Watched:
    """How far the worker is, by what its group has committed."""

    admin: AIOKafkaAdminClient
    group: str
    partitions: Sequence[TopicPartition]

    async def done(self) -> int:
        """Messages."""
        found = await self.admin.list_consumer_group_offsets(
            self.group, partitions=[*self.partitions]
        )
        return sum(max(0, one.offset) for one in found.values())


@asynccontextmanager
async def _watched(world: harness.World, partitions: int) -> AsyncIterator[_Watched]:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        raw = [TopicPartition(world.raw, n) for n in range(partitions)]
        yield _Watched(admin, world.group, raw)
    finally:
        await admin.close()


@asynccontextmanager
async def _working(world: harness.World, folder: Path) -> AsyncIterator[harness.Worker]:
    worker = harness.Worker(world.environment(), folder / f"{world.id}.log")
    worker.start()
    try:
        await worker.ready(60)
        yield worker
        await worker.stop()
    finally:
        worker.send(signal.SIGCONT)
        worker.kill()


async def _before(database: str, point: Point, start_ms: int) -> Sequence[Before]:
    """What is stored that windows of the traffic reach."""
    widest = max(one.window_ms for one in point.shape.velocity)
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch(
            "SELECT lead_id, event_type, event_ms(occurred_at) FROM events WHERE occurred_at > ms_event($1)",
            start_ms - widest - _LATE_MS,
        )
    finally:
        await connection.close()
    return [Before(*row) for row in rows]


async def _send(world: harness.World, sent: Sequence[Sent]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=world.kafka,
        linger_ms=20,
        max_batch_size=1 << 19,
        enable_idempotence=True,
    ) as producer:
        sending = [await producer.send(world.raw, one.value, one.key) for one in sent]
        for each in sending:
            await each


async def _until_done(watched: _Watched, worker: harness.Worker, messages: int) -> None:
    begun = time.monotonic()
    while (done := await watched.done()) < messages:
        waited = time.monotonic() - begun
        assert worker.running, f"it ended:\n{worker.output[-4000:]}"
        assert waited < LONGEST_S, f"{done} messages of {messages}"
        await asyncio.sleep(max(POLL_S, waited / 100))  # so that looking costs next to nothing


async def _until_counted(world: harness.World) -> None:
    """All that was stored is in the counts behind listings."""
    database = await asyncpg.connect(world.postgres)
    try:
        none = "SELECT count(*) = 0 FROM event_count_changes"
        await harness.until(lambda: database.fetchval(none), LONGEST_S)
    finally:
        await database.close()


async def _wrong(world: harness.World, sent: Sequence[Sent]) -> int:
    """How many rows and messages are missing, too many or other than they have to be."""
    wanted = verdicts(sent)
    said = [
        json.loads(one.value or b"{}")
        for one in await harness.read_topic(world.kafka, world.enriched)
    ]
    database = await asyncpg.connect(world.postgres)
    try:
        rows = await database.fetch(
            "SELECT id, suppression_reason FROM events WHERE source_topic = $1", world.raw
        )
    finally:
        await database.close()
    times = Counter(one["id"] for one in said)
    published = {one["id"]: one["suppression_reason"] for one in said}
    return (
        sum(number - 1 for number in times.values())
        + _unlike(wanted, {row[0]: row[1] for row in rows})
        + _unlike(wanted, published)
    )


def _unlike(wanted: Mapping[str, str | None], found: Mapping[str, str | None]) -> int:
    missing = object()
    more = len(found.keys() - wanted.keys())
    return more + sum(found.get(one, missing) != reason for one, reason in wanted.items())


async def _forget(world: harness.World) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        await admin.delete_topics([world.raw, world.merges, world.enriched, world.dead])
    finally:
        await admin.close()


def _resident_mb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 // (1 << 20)
