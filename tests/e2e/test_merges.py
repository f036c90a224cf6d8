"""Merges through the whole worker: what it reads of two topics at once converges to what the merges say."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.harness import Message, Worker, World, processor, produce, read_topic, until
from tests.oracle_leads import Forest

START = datetime(2026, 3, 1, tzinfo=UTC)
BIG = 100_000
FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {id: calm, name: Calm, event_type: page_view, threshold: 50, window_ms: 60000}
      - {id: first, name: First, event_type: page_view, threshold: 50, window_ms: 60000, keep_first: true}
"""
_LOAD = """INSERT INTO events (
    org_unit, id, lead_id, event_type, metadata, occurred_at, received_at,
    source_topic, source_partition, source_offset, batch, rules, counted)
SELECT 'acme', 'big-' || n, 'big', 'Page View', '{}', $1::timestamptz + n * interval '100 milliseconds', now(),
    'before', 0, n, 0, 1, true
FROM generate_series(1, $2::bigint) n"""

Start = Callable[..., Worker]


def event(number: int, lead: str, at: datetime = START) -> Message:
    """A page view."""
    said = {
        "id": f"e-{number}",
        "org_unit": "acme",
        "lead_id": lead,
        "event_type": "page_view",
        "timestamp": (at + timedelta(milliseconds=number)).isoformat(timespec="milliseconds"),
    }
    return Message(json.dumps(said).encode(), lead.encode())


def merge(target: str, *sources: str) -> Message:
    """A request to merge."""
    said = {"org_unit": "acme", "target_lead_id": target, "source_lead_ids": sources}
    return Message(json.dumps(said).encode(), b"acme")


async def enriched(world: World, number: int) -> list[dict[str, Any]]:
    """The enriched events that are no merges, once there are `number` of them, then the merges."""

    async def enough() -> list[dict[str, Any]]:
        records = await read_topic(world.kafka, world.enriched)
        found = [json.loads(record.value or b"") for record in records]
        return found * (len([f for f in found if f["event_type"] != "Lead Merged"]) >= number)

    return await until(enough, 60)


async def settled(connection: asyncpg.Connection) -> Mapping[str, Any]:
    """The rows by id, once no move is pending."""

    async def moved() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM lead_moves")

    await until(moved, 60)
    rows = await connection.fetch("SELECT id, lead_id, original_lead_id, event_type FROM events")
    return {row["id"]: row for row in rows}


def roots_of(wanted: list[Message]) -> dict[str, str]:
    """The root of each merged lead, by the independent forest."""
    forest = Forest()
    for one in wanted:
        said = json.loads(one.value or b"")
        target = forest.root("acme", said["target_lead_id"])
        outside = [s for s in said["source_lead_ids"] if forest.root("acme", s) != target]
        forest.join("acme", target, outside)
    leads = {edge.source for edge in forest.edges}
    return {lead: forest.root("acme", lead) for lead in leads}


@pytest.mark.timeout(120)
async def test_merges_between_events_converge_to_what_the_merges_say(
    world: World, start_worker: Start
) -> None:
    """Chains, circles, itself, repeats: each row stands under the root of the lead it named."""
    rng = random.Random(7)
    leads = [f"lead-{n}" for n in range(12)]
    events = [event(n, rng.choice(leads)) for n in range(2_000)]
    wanted = [merge(*rng.sample(leads, rng.choice([2, 3]))) for _ in range(14)]
    wanted += [merge("lead-0", "lead-0"), wanted[0]]
    await world.create_topics()
    workers = [start_worker(world.environment()) for _ in range(2)]
    for worker in workers:
        await worker.ready(40)
    for n, one in enumerate(wanted):
        await produce(world.kafka, world.raw, events[n * 125 : (n + 1) * 125])
        await produce(world.kafka, world.merges, [one])
    await enriched(world, len(events))
    connection = await asyncpg.connect(world.postgres)

    async def all_logged() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = 16 FROM merges"))

    await until(all_logged, 30)
    rows = await settled(connection)
    redirects = await connection.fetch("SELECT from_lead, to_lead FROM lead_redirects")
    no_ops = await connection.fetchval("SELECT count(*) FROM merges WHERE event_id IS NULL")
    await connection.close()
    roots = {row["from_lead"]: row["to_lead"] for row in redirects}
    assert roots == roots_of(wanted)
    assert misplaced(events, rows, roots) == []
    ids = [message["id"] for message in await enriched(world, len(events))]
    assert len(ids) == len(set(ids)) == len(rows) == len(events) + 16 - no_ops


def misplaced(
    events: list[Message], rows: Mapping[str, Any], roots: Mapping[str, str]
) -> list[str]:
    """Events whose row is not under the root of the lead they named, or does not remember that lead."""
    wrong = []
    for one in events:
        said = json.loads(one.value or b"")
        root = roots.get(said["lead_id"], said["lead_id"])
        named = None if root == said["lead_id"] else said["lead_id"]
        row = rows[said["id"]]
        if (row["lead_id"], row["original_lead_id"]) != (root, named):
            wrong.append(said["id"])
    return wrong


@pytest.mark.timeout(240)
async def test_no_lane_pauses_a_second_while_a_lead_of_100_000_events_is_merged(
    world: World, start_worker: Start, tmp_path: Path
) -> None:
    """Its own events go on too, judged by windows that are built anew, until the last row has moved."""
    await world.create_topics(2)
    (tmp_path / "filters.yaml").write_text(FILTERS)
    processor(world.environment(), "filters", "apply", str(tmp_path / "filters.yaml"))
    connection = await asyncpg.connect(world.postgres)
    await connection.execute(_LOAD, START - timedelta(days=1), BIG)
    worker = start_worker(world.environment())
    await worker.ready(40)
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        load = tasks.create_task(_load(world, done))
        await enriched(world, 100)
        await produce(world.kafka, world.merges, [merge("small", "big")])

        async def moved() -> bool:
            query = "SELECT count(*) = 0 FROM events WHERE lead_id = 'big'"
            return bool(await connection.fetchval(query))

        await until(moved, 180)
        done.set()
    messages = await enriched(world, load.result())
    await connection.close()
    (told,) = [message for message in messages if message["event_type"] == "Lead Merged"]
    assert told["metadata"]["events_moved"] >= BIG
    assert await longest_wait(world) < 1


async def _load(world: World, done: asyncio.Event) -> int:
    """Events of the leads that are merged, and of another, without a pause until `done`; how many."""
    number = 0
    while not done.is_set():
        some = [event(n, ("big", "small", "other")[n % 3]) for n in range(number, number + 6)]
        await produce(world.kafka, world.raw, some)
        number += len(some)
    return number


async def longest_wait(world: World) -> float:
    """The longest time in seconds from when an event was sent to when it was committed."""
    longest = 0.0
    for record in await read_topic(world.kafka, world.enriched):
        message = json.loads(record.value or b"")
        if message["event_type"] != "Lead Merged":
            received = datetime.fromisoformat(message["received_at"]).timestamp()
            longest = max(longest, received - record.timestamp / 1000)
    return longest
