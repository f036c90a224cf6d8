"""One run: servers of its own world, workers that can be struck, a load that goes on meanwhile, and what came of it."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from aiokafka import AIOKafkaProducer

from processor.io.kafka_topics import create_topics
from tests import harness
from tests.faults.checker import Violation, check
from tests.faults.evidence import Evidence, collect, committed
from tests.faults.history import FILTERS, Asked, History, Load, Merge, Sent
from tests.faults.promise import Promise
from tests.faults.proxy import Proxy, proxied
from tests.faults.servers import FaultStack
from tests.traffic import Record

T = TypeVar("T")
PARTITIONS = 4
RATE = 1_000
"""Events a second while faults strike."""
WAVES_A_SECOND = 20
DRAIN_S = 150.0
STRIKE_S = 60.0


@dataclass
class Field:
    """What a row of the matrix works with."""

    stack: FaultStack
    world: harness.World
    folder: Path
    seed: int
    events: int
    """How many the row is asked to send, at least."""
    promise: Promise = field(default_factory=Promise)
    history: History = field(default_factory=History)
    workers: list[harness.Worker] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of workers beside those of the world."""
    healed: float = 0.0
    """When the last fault ended, by `time.monotonic`."""
    most_rss_mb: float = 0.0
    proxies: dict[str, Proxy] = field(default_factory=dict)
    _closing: AsyncExitStack = field(default_factory=AsyncExitStack)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.load = Load(self.seed, PARTITIONS)

    @property
    def bad(self) -> int:
        """How many of the records sent so far are bad."""
        return sum(sent.asks is None for sent in self.history.sent)

    async def prepare(self) -> None:
        """Topics and filters."""
        await create_topics(self.world.settings(), PARTITIONS)
        await self.apply(FILTERS)

    async def apply(self, document: Mapping[str, object]) -> None:
        """``filters apply``: in force when it returns."""
        path = self.folder / "filters.yaml"
        path.write_text(json.dumps(document))
        await asyncio.to_thread(
            harness.processor, self.world.environment(), "filters", "apply", str(path)
        )

    async def through(self, server: str) -> Proxy:
        """Workers started from now on reach ``kafka``, ``redis`` or ``postgres`` through this proxy."""
        variable = {
            "kafka": "KAFKA_BOOTSTRAP_SERVERS",
            "redis": "REDIS_URL",
            "postgres": "DATABASE_URL",
        }[server]
        if server == "kafka":
            opened = proxied(self.stack.behind, self.stack.proxy, kafka=True)
            proxy = await self._closing.enter_async_context(opened)
            self.environment[variable] = f"127.0.0.1:{proxy.port}"
        else:
            url = urlsplit(self.world.environment()[variable])
            proxy = await self._closing.enter_async_context(proxied(url.port or 0))
            place = f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
            self.environment[variable] = urlunsplit(url._replace(netloc=place))
        self.proxies[server] = proxy
        return proxy

    async def keep(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enters it; it is left when the run is over and its evidence taken."""
        return await self._closing.enter_async_context(context)

    async def start(self, count: int = 1, **more: str) -> list[harness.Worker]:
        """So many further workers, ready."""
        new = [self.launch(**more) for _ in range(count)]
        for worker in new:
            await worker.ready(60)
        return new

    def launch(self, **more: str) -> harness.Worker:
        """One further worker, which may not be ready yet."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = {
            **self.world.environment(),
            "FAULT_FOLDER": str(self.folder),
            **self.environment,
            **more,
        }
        worker = harness.Worker(environment, log, (), module="tests.faults.worker")
        self.workers.append(worker)
        worker.start()
        return worker

    async def send(self, count: int, rate: float = RATE) -> None:
        """So many events of the load, at `rate` a second (0: at once); all acknowledged when it returns."""
        async with self.sending(count, rate):
            pass

    @asynccontextmanager
    async def sending(self, count: int | None = None, rate: float = RATE) -> AsyncIterator[None]:
        """Sends beside the block for as long as it takes, and then on until there are `count` at least."""
        least, over = self.events if count is None else count, asyncio.Event()
        async with asyncio.TaskGroup() as beside:
            beside.create_task(self._flow(least, rate, over))
            try:
                yield
            finally:
                over.set()

    async def _flow(self, least: int, rate: float, over: asyncio.Event) -> None:
        size = max(1, int(rate / WAVES_A_SECOND)) if rate else 1_000
        async with self._producer() as producer:
            started, sent = time.monotonic(), 0
            while sent < least or not over.is_set():
                wave = self.load.take(min(size, least - sent) if over.is_set() else size)
                await self._produce(producer, self.world.raw, wave)
                sent += len(wave)
                self._weigh()
                if rate:
                    await asyncio.sleep(max(0.0, started + sent / rate - time.monotonic()))

    async def merge(self, org_unit: str, target: str, *sources: str, kind: str = "merge") -> None:
        """A merge message, acknowledged; all on one partition, so that their order is known."""
        asked = Merge(org_unit, target, sources, kind)
        value = {"org_unit": org_unit, "target_lead_id": target, "kind": kind}
        body = json.dumps({**value, "source_lead_ids": list(sources)}).encode()
        record = Record(0, time.time_ns() // 1_000_000, org_unit.encode(), body)
        await self.produce(self.world.merges, [(record, asked)])

    async def produce(
        self, topic: str, wave: list[tuple[Record, Asked | None]] | list[tuple[Record, Merge]]
    ) -> None:
        """Records of a row's own; all acknowledged when it returns."""
        async with self._producer() as producer:
            await self._produce(producer, topic, wave)

    async def strike(self, point: str, action: str) -> harness.Worker:
        """Arms a point; the worker that was struck there."""
        self.arm(point, action)
        return await self.struck()

    def arm(self, point: str, action: str) -> None:
        """The next worker that passes the point is struck."""
        (self.folder / "struck").unlink(missing_ok=True)
        whole = self.folder / "arming"
        whole.write_text(f"{point} {action}")
        whole.replace(self.folder / "armed")

    async def struck(self) -> harness.Worker:
        """The worker that was struck at the point that is armed."""
        told = self.folder / "struck"
        await harness.until(told.exists, STRIKE_S)
        pid = int(told.read_text())
        return next(worker for worker in self.workers if worker.process and worker.pid == pid)

    def heal(self) -> None:
        """From here on nothing is wrong any more: progress is due."""
        for proxy in self.proxies.values():
            proxy.heal()
        self.healed = time.monotonic()

    async def metric(self, name: str) -> float:
        """The sum of a metric over all workers that run, whatever its labels."""
        total = 0.0
        for worker in self.workers:
            if worker.running:
                found = await worker.metrics()
                total += sum(v for k, v in found.items() if k.split("{")[0] == name)
        return total

    async def lag(self) -> int:
        """How many of the records sent so far are not committed."""
        ends = self.history.ends()
        found = await committed(self.world, ends)
        return sum(max(0, end - found[lane]) for lane, end in ends.items())

    def logged(self, event: str) -> int:
        """How often workers, also those that are gone, have logged an event."""
        wanted = f'"event": "{event}"'
        return sum(worker.output.count(wanted) for worker in self.workers)

    async def settle(self, seconds: float = DRAIN_S) -> Evidence:
        """Drains, and takes the evidence."""
        return await self.evidence(await self.drained(seconds))

    async def drained(self, seconds: float = DRAIN_S) -> float:
        """Seconds from the heal until everything is done; what is not done in time is a violation, not an error."""
        self.healed = self.healed or time.monotonic()
        ends = self.history.ends()

        async def committed_all() -> bool:
            self._weigh()
            found = await committed(self.world, ends)
            return all(found[lane] >= end for lane, end in ends.items())

        with suppress(AssertionError):  # I7 says which lanes
            await harness.until(committed_all, seconds)
            await harness.until(self._moved, seconds)
        return time.monotonic() - self.healed

    async def evidence(self, recovery_s: float) -> Evidence:
        """Of all that was done; of a long run it holds up this process, and so its proxies."""
        await self._visible()
        evidence = await collect(self.world, self.history)
        evidence.recovery_s, evidence.most_rss_mb = recovery_s, self.most_rss_mb
        return evidence

    async def verdict(self) -> tuple[Evidence, list[Violation]]:
        """The evidence, and what is wrong with it."""
        evidence = await self.settle()
        return evidence, check(self.history, evidence, self.promise)

    async def close(self) -> None:
        """Ends the workers, then the proxies."""
        for worker in self.workers:
            worker.kill()
        await self._closing.aclose()

    async def ask(self, query: str, *values: object) -> Any:
        """The first value that Postgres answers."""
        connection = await asyncpg.connect(self.world.postgres)
        try:
            return await connection.fetchval(query, *values)
        finally:
            await connection.close()

    async def _moved(self) -> bool:
        """No rows are left to be moved by merges."""
        left: int = await self.ask("SELECT count(*) FROM lead_moves")
        return left == 0

    async def _visible(self) -> None:
        """What is committed may be readable a moment later: waits, at most a while, until every row is."""

        async def all_seen() -> bool:
            seen = await harness.read_topic(self.world.kafka, self.world.enriched)
            stored: int = await self.ask("SELECT count(*) FROM events WHERE deleted_at IS NULL")
            return len(seen) >= stored

        with suppress(AssertionError):  # I4 says which
            await harness.until(all_seen, 5)

    def _weigh(self) -> None:
        for worker in self.workers:
            if worker.running:
                try:
                    rss = psutil.Process(worker.pid).memory_info().rss / 2**20
                except psutil.NoSuchProcess:
                    continue
                self.most_rss_mb = max(self.most_rss_mb, rss)

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """Straight to Kafka: the load is not what faults strike."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.world.kafka, enable_idempotence=True, max_batch_size=1 << 19
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def _produce(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        wave: list[tuple[Record, Asked | None]] | list[tuple[Record, Merge]],
    ) -> None:
        futures = [
            await producer.send(
                topic, r.value, r.key, partition=r.partition, timestamp_ms=r.timestamp
            )
            for r, _ in wave
        ]
        places = [await future for future in futures]
        for place, (record, asks) in zip(places, wave, strict=True):
            self.history.sent.append(
                Sent(topic, place.partition, place.offset, asks, record.timestamp)
            )
