"""A stream sent to real workers with the oracle beside it: what was sent in which order, under which filters, and what came of it."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from processor.demo.recount import recount
from tests import harness
from tests.oracle import Oracle, Order, hashed
from tests.oracle_compare import Published, dead_problems, message_problems, row_problems
from tests.oracle_filters import FilterBook
from tests.oracle_parse import Message
from tests.traffic import Record
from tests.traffic_filters import as_yaml

ROWS = """
    SELECT org_unit, id, lead_id, original_lead_id, event_type, metadata::text AS metadata, suppression_reason,
           suppressed_by::text AS suppressed_by, (extract(epoch FROM occurred_at) * 1000)::bigint AS occurred_at,
           (extract(epoch FROM received_at) * 1000)::bigint AS received_at,
           source_topic, source_partition, source_offset, batch, rules
      FROM events
"""
DERIVED = re.compile(r"[0-9a-f]{32}")
Place = tuple[str, int, int]


@dataclass
class Run:
    """What one test sends; ``more`` are further variables of the workers."""

    world: harness.World
    folder: Path
    order: Order = "velocity,metadata"
    more: Mapping[str, str] = field(default_factory=dict)
    max_future_ms: int = 3_600_000
    sent: list[Message] = field(default_factory=list)
    books: list[tuple[int, FilterBook]] = field(default_factory=lambda: [(0, FilterBook())])
    """Each with the first rule revision it holds for."""
    workers: list[harness.Worker] = field(default_factory=list)
    program: Path | None = None
    """The folder whose code applies filters; this one's by default."""

    @property
    def environment(self) -> dict[str, str]:
        """Of the workers."""
        return {**self.world.environment(), "FILTER_ORDER": self.order, **self.more}

    async def work(self, start_worker: Callable[..., harness.Worker], count: int = 1) -> None:
        """Starts so many workers and waits until they are ready."""
        self.workers = [start_worker(self.environment) for _ in range(count)]
        for worker in self.workers:
            await worker.ready(60)

    async def apply(self, document: Mapping[str, Any]) -> None:
        """``filters apply``; the filters hold from its end on at the latest."""
        path = self.folder / f"filters-{len(self.books)}.yaml"
        path.write_text(as_yaml(dict(document)), encoding="utf-8")
        await asyncio.to_thread(
            harness.processor,
            self.world.environment(),
            *("filters", "apply", str(path)),
            program=self.program,
        )
        async with self._database() as database:
            revision = await database.fetchval("SELECT revision FROM rule_state")
        self.books.append((revision, self.books[-1][1].apply(document)))

    async def send(self, records: Sequence[Record]) -> None:
        """Raw events, all acknowledged when it returns."""
        await self._send(self.world.raw, records)

    async def merge(self, *asked: Mapping[str, Any]) -> None:
        """Merge messages, all on one partition."""
        at = time.time_ns() // 1_000_000
        await self._send(
            self.world.merges, [Record(0, at, b"org", json.dumps(a).encode()) for a in asked]
        )

    async def _send(self, topic: str, records: Sequence[Record]) -> None:
        wanted = [
            harness.Message(r.value, r.key, r.partition, r.timestamp, r.headers) for r in records
        ]
        places = await harness.produce(self.world.kafka, topic, wanted)
        self.sent += [
            Message(topic, *place, r.timestamp, r.key, r.value, r.headers)
            for place, r in zip(places, records, strict=True)
        ]

    async def settled(self, seconds: float = 150) -> None:
        """Returns when the group has committed everything sent, and no rows are left to be moved by merges."""
        ends: dict[TopicPartition, int] = {}
        for message in self.sent:
            ends[TopicPartition(message.topic, message.partition)] = message.offset + 1
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.world.kafka,
            group_id=self.world.group,
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign(list(ends))

            async def done() -> bool:
                for worker in self.workers:
                    assert worker.running, worker.output[-4000:]
                found = {tp: await consumer.committed(tp) or 0 for tp in ends}
                return all(found[tp] >= end for tp, end in ends.items()) and await self._moved()

            await harness.until(done, seconds)
        except AssertionError as late:
            raise AssertionError("\n".join(w.output[-2000:] for w in self.workers)) from late
        finally:
            await consumer.stop()

    async def _moved(self) -> bool:
        async with self._database() as database:
            left: int = await database.fetchval("SELECT count(*) FROM lead_moves")
        return left == 0

    async def rows(self) -> list[dict[str, Any]]:
        """All stored rows, JSON as Python values."""
        async with self._database() as database:
            found = [dict(record) for record in await database.fetch(ROWS)]
        for row in found:
            for name in ("metadata", "suppressed_by"):
                row[name] = None if row[name] is None else json.loads(row[name])
        return found

    async def verdicts(self) -> dict[tuple[str, str], list[str | None]]:
        """The reasons published of each event, once for each message."""
        found: dict[tuple[str, str], list[str | None]] = {}
        for message in await self._read(self.world.enriched, len(await self.rows())):
            event = json.loads(message.value or b"null")
            found.setdefault((event["org_unit"], event["id"]), []).append(
                event["suppression_reason"]
            )
        return found

    async def row_problems(self) -> list[str]:
        """What differs from the oracle in rows."""
        rows = await self.rows()
        return row_problems(self._oracle(rows), rows)

    async def check(self) -> None:
        """Fails with what differs from the oracle in rows, messages, dead letters, or by the recount."""
        problems = await self._problems()
        shown = "\n".join(problems[:40])
        assert not problems, f"{len(problems)} differences, the first:\n{shown}"

    async def _problems(self) -> list[str]:
        rows = await self.rows()
        oracle = self._oracle(rows)
        received = {(row["org_unit"], row["id"]): row["received_at"] for row in rows}
        published = await self._read(self.world.enriched, len(oracle.rows))
        letters = await self._read(self.world.dead, len(oracle.dead))
        found = [
            *row_problems(oracle, rows),
            *message_problems(oracle, published, received),
            *dead_problems(oracle, letters),
            *_order_problems(rows),
        ]
        async with self._database() as database:
            report = await recount(database, self.order)
        return [*found, *(f"recount: {mismatch}" for mismatch in report.mismatches)]

    def _oracle(self, rows: Iterable[Mapping[str, Any]]) -> Oracle:
        """An oracle fed with everything sent; each message under the rules its row names."""
        by_place = {_place(row): row for row in rows}

        def derive(message: Message) -> str:
            row = by_place.get(message.place[:3])
            return row["id"] if row and DERIVED.fullmatch(row["id"]) else hashed(message)

        oracle = Oracle(self.order, self.max_future_ms, derive)
        for message in self.sent:
            row = by_place.get(message.place[:3])
            revision = row["rules"] if row else 0
            oracle.book = next(book for since, book in reversed(self.books) if since <= revision)
            feed = oracle.feed if message.topic == self.world.raw else oracle.merge
            feed(message)
        return oracle

    async def _read(self, topic: str, count: int) -> list[Published]:
        """A topic's committed records, once there are as many as expected or a while has passed."""
        found: list[Any] = []

        async def enough() -> bool:
            found[:] = await harness.read_topic(self.world.kafka, topic)
            return len(found) >= count

        with suppress(AssertionError):  # what is missing is named by the comparison
            await harness.until(enough, 10)
        return [Published(r.key, r.value, tuple(r.headers)) for r in found]

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.world.postgres)
        try:
            yield connection
        finally:
            await connection.close()


def _place(row: Mapping[str, Any]) -> Place:
    return row["source_topic"], row["source_partition"], row["source_offset"]


def _order_problems(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """S10: no row committed later was judged by older rules."""
    problems, newest = [], 0
    for row in sorted(rows, key=lambda row: row["batch"]):
        if row["rules"] < newest:
            problems.append(f"{row['org_unit'], row['id']}: judged by rules {row['rules']}")
        newest = max(newest, row["rules"])
    return problems
