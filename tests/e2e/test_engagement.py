"""The engagement service beside real workers on real Kafka: killed, frozen and restarted, it counts what a recount of the events finds."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from processor.embedded import Stack
from processor.io.postgres import TRANSACTION_S
from tests.e2e.engaging import (
    ENVIRONMENT,
    SURGE,
    assert_equal_to_a_recount,
    enriched,
    last_scores,
    settled,
    told,
)
from tests.harness import Message, Worker, World, processor, produce, read_topic, until
from tests.oracle_engagement import WEEK, Recounted, untold

pytestmark = pytest.mark.e2e
Start = Callable[..., Worker]
MILLISECOND = timedelta(milliseconds=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
UNMERGED = ("lead-4", "lead-8", "lead-9")
LEADS = [f"lead-{n}" for n in range(10)]
FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {id: bursts, name: Bursts, event_type: page_view, threshold: 3, window_ms: 1000}
"""
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
TYPES = ["page_view", "page_view", "email_open", "form_submit", "call"]


def event(number: int, lead: str, kind: str, at: datetime) -> Message:
    """A raw event."""
    said = {
        "id": f"e-{number}",
        "org_unit": "acme",
        "lead_id": lead,
        "event_type": kind,
        "timestamp": at.isoformat(timespec="milliseconds"),
    }
    return Message(json.dumps(said).encode(), lead.encode())


def visits(rng: random.Random, number: int, first: int) -> list[Message]:
    """Events of visits of some minutes, spread over weeks and in no order; some pages are loaded four times in a second."""
    found: list[Message] = []
    while len(found) < number:
        lead, begin = rng.choice(LEADS), START + timedelta(minutes=rng.randrange(40_000))
        for _ in range(rng.randrange(1, 6)):
            begin += timedelta(seconds=rng.randrange(400))
            found.append(event(first + len(found), lead, rng.choice(TYPES), begin))
        if not rng.randrange(4):
            times = [begin + timedelta(seconds=5, milliseconds=n) for n in range(5)]
            found += [
                event(first + len(found) + n, lead, "page_view", at) for n, at in enumerate(times)
            ]
    rng.shuffle(found)
    return found


def merge(kind: str, target: str, *sources: str) -> Message:
    """A request to merge or unmerge."""
    said = {"org_unit": "acme", "target_lead_id": target, "source_lead_ids": sources, "kind": kind}
    return Message(json.dumps(said).encode(), b"acme")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """To look at the test's database."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def counted(connection: asyncpg.Connection, number: int) -> None:
    """Returns once so many events are counted, or more."""

    async def enough() -> bool:
        query = "SELECT count(*) >= $1 FROM engaged_events"
        return bool(await connection.fetchval(query, number))

    await until(enough, 40)


PARTING = merge("unmerge", "nobody", "lead-1")
CHAIN = merge("merge", "lead-5", "lead-6"), merge("merge", "lead-6", "lead-7")


class Traffic:
    """Raw events and merges, numbered on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(3)
        self.sent = 0
        self.merges = 0

    async def send(self, number: int, *merges: Message) -> None:
        """Some more of both at once; returns when Kafka has them."""
        found = visits(self._rng, number, self.sent)
        self.sent += len(found)
        self.merges += len(merges)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(produce(self._world.kafka, self._world.raw, found))
            tasks.create_task(produce(self._world.kafka, self._world.merges, merges))


@pytest.mark.fault
@pytest.mark.timeout(240)
async def test_two_processes_count_what_a_recount_finds_whatever_happens_to_them(
    world: World, start_worker: Start, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    """One is killed, another frozen until it is believed dead, Postgres drops everybody, among late events and merges."""
    await prepare(world, tmp_path)
    environment = {**world.environment(), **ENVIRONMENT}
    services = [start_worker(environment, "engagement") for _ in range(2)]
    for one in (start_worker(environment), *services):
        await one.ready(40)
    traffic = Traffic(world)
    await traffic.send(800, merge("merge", "lead-0", "lead-1"), merge("merge", "lead-2", "lead-3"))
    await counted(connection, 200)
    services[0].kill()
    await connection.execute(CUT)
    services.append(start_worker(environment, "engagement"))
    await traffic.send(800, merge("merge", "nobody", "lead-0", "lead-2"), PARTING)
    services[1].send(signal.SIGSTOP)
    await traffic.send(400, *CHAIN)
    await settled(connection, traffic.sent, traffic.merges, 60 + TRANSACTION_S)
    services[1].send(signal.SIGCONT)
    await traffic.send(200)
    await settled(connection, traffic.sent, traffic.merges)
    wanted = await assert_equal_to_a_recount(connection)
    assert len(wanted) < len(LEADS)
    assert_told(await told(world), wanted)
    for one in services[1:]:
        assert await one.stop() == 0, one.output[-4000:]
        assert "engagement_drained" in one.output


async def prepare(world: World, folder: Path) -> None:
    """Topics, and a filter."""
    await world.create_topics(4)
    (folder / "filters.yaml").write_text(FILTERS)
    processor(world.environment(), "filters", "apply", str(folder / "filters.yaml"))


def assert_told(said: list[dict[str, Any]], wanted: Mapping[str, Recounted]) -> None:
    """Each lead's creation and its last score; surges only where there are some."""
    last = last_scores(said)
    created = {one["lead_id"] for one in said if one["type"] == "lead_created"}
    assert created >= set(wanted)
    for lead, own in wanted.items():
        score, at = last[lead]
        assert score == pytest.approx(own.score(milliseconds(at)), abs=2e-6), lead
        assert milliseconds(at) == own.last
    surges = [one for one in said if one["type"] == "surge" and one["lead_id"] in wanted]
    assert surges
    found = {(one["lead_id"], milliseconds(one["at"])) for one in surges}
    assert found <= {(lead, at) for lead, own in wanted.items() for at in own.surging}
    for lead in UNMERGED:
        times = [at for one, at in found if one == lead]
        assert untold(wanted[lead].surging, times, SURGE[2]) == []


def milliseconds(text: str) -> int:
    """Of a time as messages have it."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // MILLISECOND


async def transactions(world: World, producer: AIOKafkaProducer, name: str) -> None:
    """One that is aborted, and one with an organic event of this name among what is none."""
    await producer.begin_transaction()
    for n in range(3):
        await producer.send_and_wait(world.enriched, enriched(f"aborted-{name}-{n}"), b"lead-1")
    await producer.abort_transaction()
    async with producer.transaction():
        await producer.send_and_wait(world.enriched, enriched(name), b"lead-1")
        for value in (b"{", None, b"\xff", enriched("s", suppression_reason="inorganic")):
            await producer.send_and_wait(world.enriched, value, b"k", headers=[("x", b"\xff")])


@pytest.mark.timeout(120)
async def test_messages_of_an_aborted_transaction_are_never_counted(
    world: World, start_worker: Start, connection: asyncpg.Connection
) -> None:
    """Faust by itself would read them.  What is no enriched event, a null value and a suppressed one are passed over too."""
    await world.create_topics(1)
    service = start_worker(world.environment(), "engagement")
    await service.ready(40)
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, transactional_id=world.id)
    async with producer:
        for number, name in enumerate(("first", "second"), 1):
            await transactions(world, producer, name)
            await counted(connection, number)
    uncommitted = await read_topic(world.kafka, world.enriched, "read_uncommitted")
    assert sum(b"aborted" in (record.value or b"") for record in uncommitted) == 6

    async def passed_over() -> bool:
        return (await service.metrics())["processor_engagement_foreign_total"] == 6

    await until(passed_over)
    assert "foreign_records" in service.output
    rows = await connection.fetch("SELECT id FROM engaged_events ORDER BY id")
    assert [row["id"] for row in rows] == ["first", "second"]
    assert (await service.metrics())["processor_engagement_events_total"] == 2
    assert await service.stop() == 0, service.output[-4000:]


@pytest.mark.timeout(120)
async def test_a_process_goes_on_where_another_has_ended(
    world: World, start_worker: Start, connection: asyncpg.Connection
) -> None:
    """Each event is told once where nothing fails; SIGTERM ends it in order."""
    await world.create_topics(2)
    await produce(world.kafka, world.enriched, [Message(enriched("1"), b"lead-1")])
    for number, lead in enumerate(("lead-1", "lead-2"), 1):
        service = start_worker(world.environment(), "engagement")
        await service.ready(40)
        message = Message(enriched(f"more-{number}", lead), lead.encode())
        await produce(world.kafka, world.enriched, [message])
        await counted(connection, number + 1)
        assert await service.stop(30) == 0, service.output[-4000:]
    said = [(one["type"], one["lead_id"], one["score"]) for one in await told(world)]
    assert said[0] == ("lead_created", "lead-1", said[0][2])
    assert ("score_update", "lead-1", 2) in said
    assert [one for one in said if one[1] == "lead-2"] == [
        ("lead_created", "lead-2", 1),
        ("score_update", "lead-2", 1),
    ]


@pytest.mark.fault
@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_server_that_restarts_is_waited_for(
    world: World, start_worker: Start, stack: Stack, server: str
) -> None:
    """Nothing is lost, and nothing counts twice."""
    assert stack.pids.get(server), "unset the servers' URLs: this test restarts its own"
    await world.create_topics(2)
    service = start_worker(world.environment(), "engagement")
    await service.ready(40)
    for number in range(2):
        messages = [Message(enriched(f"{number}-{n}", f"l{n}"), b"%d" % n) for n in range(500)]
        await produce(world.kafka, world.enriched, messages)
        if not number:
            stack.restart(server)
    connection = await asyncpg.connect(world.postgres)
    await counted(connection, 1_000)
    total = await connection.fetchval("SELECT sum(total * 2.0 ^ (week - 2930)) FROM engaged_leads")
    each = 2.0 ** (milliseconds("2026-03-01T00:00:00.000Z") / WEEK - 2930)
    assert total == pytest.approx(1_000 * each)
    await connection.close()
    assert await service.stop() == 0, service.output[-4000:]
