"""One run of a contender over a backlog: a fresh database, an empty Valkey and a fresh topic for its output; then every row and
message is compared with the brute force.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from processor.embedded import Stack
from processor.io.kafka_topics import create_topics
from processor.io.migrate import migrate
from tests import harness
from tests.bench import floor
from tests.bench.traffic import Sent, filters, verdicts
from tests.capacity.used import cpu

PARTITIONS = 8
RAW = "bench.backlog"
POLL_S = 0.05
QUIET_S = 1.0
"""Nothing more comes after so long without anything."""
LONGEST_S = 900.0


@dataclass(frozen=True)
class Contender:
    """A program that does the job, or the floor."""

    name: str
    module: str
    command: Sequence[str]
    environment: Mapping[str, str]
    judges: bool
    """It gives verdicts."""


FLOOR = Contender("floor", "tests.bench.floor", (), {}, judges=False)
EXACTLY_ONCE = Contender("exactly_once", "processor", ("worker",), {}, judges=True)
AT_LEAST_ONCE = replace(
    EXACTLY_ONCE,
    name="at_least_once",
    environment={"PROCESSING_GUARANTEE": "at_least_once"},
)
CONTENDERS = (FLOOR, EXACTLY_ONCE, AT_LEAST_ONCE)


@dataclass(frozen=True)
class Result:
    """What a run took.  CPU is user and system of all processes of a part from the start to the end, µs an event."""

    contender: str
    events: int
    events_s: float
    """From the first output to the last row and message, without what was there at the first look."""
    first_output_s: float
    """From the start of the process."""
    cpu: Mapping[str, float]
    memory_mb: int
    wrong: int
    """Rows, messages and verdicts unlike the brute force."""


class Bench:
    """A stack with a filled raw topic; its servers serve all contenders alike."""

    def __init__(self, stack: Stack, folder: Path, sent: Sequence[Sent]) -> None:
        self._stack = stack
        self._folder = folder
        self._sent = sent
        self._pids = {name: own[0] for name, own in stack.pids.items()}
        self._runs = 0

    async def fill(self) -> None:
        """Puts the traffic on the raw topic."""
        stack = self._stack
        world = harness.World(stack.kafka, stack.redis, stack.postgres, "bench")
        await create_topics(world.settings(RAW_TOPIC=RAW), PARTITIONS)
        async with AIOKafkaProducer(
            bootstrap_servers=stack.kafka,
            linger_ms=20,
            max_batch_size=1 << 19,
            enable_idempotence=True,
        ) as producer:
            sent = [await producer.send(RAW, one.value, one.key) for one in self._sent]
            for each in sent:
                await each

    async def run(self, contender: Contender) -> Result:
        """Raises AssertionError where it ends or does not come to an end."""
        async with self.prepared(contender, RAW) as (world, worker):
            async with _watched(world) as watched:
                before = self._used()
                begun = time.monotonic()
                worker.start()
                first, last, seen = await self._caught_up(worker, watched)
                spent = {part: s - before[part] for part, s in self._used().items()}
                spent["worker"] = cpu([worker.pid])
            memory = _peak_mb(worker.pid)
            await worker.stop()
            wrong = await _wrong(world, contender, self._sent)
        events = len(verdicts(self._sent))
        return Result(
            contender=contender.name,
            events=events,
            events_s=(events - seen) / (last - first),
            first_output_s=first - begun,
            cpu={part: 1e6 * seconds / events for part, seconds in spent.items()},
            memory_mb=memory,
            wrong=wrong,
        )

    @asynccontextmanager
    async def prepared(
        self, contender: Contender, raw: str | None = None
    ) -> AsyncIterator[tuple[harness.World, harness.Worker]]:
        """A world, and a worker for it that is not started; it reads the topic `raw`, or one of its own."""
        self._runs += 1
        name = await asyncio.to_thread(harness.create_database, self._stack.postgres)
        database = harness.database_url(self._stack.postgres, name)
        harness.flush_redis(self._stack.redis)
        stack = self._stack
        world = harness.World(stack.kafka, stack.redis, database, f"bench{self._runs}")
        environment = {
            **world.environment(),
            "RAW_TOPIC": raw or world.raw,
            **contender.environment,
        }
        await create_topics(world.settings(RAW_TOPIC=raw or world.raw), PARTITIONS)
        if contender.judges:
            await migrate(database)
            path = self._folder / "filters.yaml"
            path.write_text(json.dumps(filters()))
            await asyncio.to_thread(harness.processor, environment, "filters", "apply", str(path))
        else:
            await asyncio.to_thread(harness.execute, database, floor.TABLE)
        await asyncio.to_thread(harness.execute, stack.postgres, "CHECKPOINT")
        log = self._folder / f"{world.id}.log"
        worker = harness.Worker(
            environment, log, command=contender.command, module=contender.module
        )
        try:
            yield world, worker
        finally:
            worker.kill()
            await asyncio.to_thread(harness.drop_database, stack.postgres, name)

    async def _caught_up(
        self, worker: harness.Worker, watched: "_Watched"
    ) -> tuple[float, float, int]:
        """When the first output was there, when the last, and how many there were at the first look."""
        events, begun = len(verdicts(self._sent)), time.monotonic()
        first, seen, last, published = 0.0, 0, 0.0, 0
        while published < events or time.monotonic() < last + QUIET_S:
            assert worker.running, f"it ended:\n{worker.output[-4000:]}"
            assert time.monotonic() < begun + LONGEST_S, f"{published} messages of {events}"
            now, offsets = time.monotonic(), await watched.published()
            if offsets and not first:
                first, seen = now, offsets
            if offsets != published:
                last, published = now, offsets
            await asyncio.sleep(POLL_S)
        return first, last, seen

    def _used(self) -> dict[str, float]:
        return {part: cpu([pid]) for part, pid in self._pids.items()}


@dataclass
class _Watched:
    """How far a run is, at little cost to what is measured.  Rows are stored before their messages are published."""

    consumer: AIOKafkaConsumer
    partitions: Sequence[TopicPartition]

    async def published(self) -> int:
        """Offsets that can be read, transactions' markers included."""
        ends = await self.consumer.end_offsets(self.partitions)
        return sum(ends.values())


@asynccontextmanager
async def _watched(world: harness.World) -> AsyncIterator[_Watched]:
    partitions = [TopicPartition(world.enriched, n) for n in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=world.kafka, isolation_level="read_committed")
    async with consumer:
        yield _Watched(consumer, partitions)


async def _wrong(world: harness.World, contender: Contender, sent: Sequence[Sent]) -> int:
    """How many rows and messages are missing, too many or other than they have to be."""
    wanted = verdicts(sent)
    messages = await harness.read_topic(world.kafka, world.enriched)
    said = [json.loads(message.value or b"{}") for message in messages]
    times = Counter(one["id"] for one in said)
    database = await asyncpg.connect(world.postgres)
    try:
        if not contender.judges:
            rows = [row[0] for row in await database.fetch("SELECT id FROM events")]
            return len(wanted.keys() ^ times.keys()) + len(wanted.keys() ^ set(rows))
        rows = await database.fetch("SELECT id, suppression_reason FROM events")
    finally:
        await database.close()
    stored = {row[0]: row[1] for row in rows}
    published = {one["id"]: one["suppression_reason"] for one in said}
    twice = sum(number - 1 for number in times.values())
    return twice + _unlike(wanted, stored) + _unlike(wanted, published)


def _unlike(wanted: Mapping[str, str | None], found: Mapping[str, str | None]) -> int:
    missing = object()
    more = len(found.keys() - wanted.keys())
    return more + sum(found.get(one, missing) != reason for one, reason in wanted.items())


def _peak_mb(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1024
