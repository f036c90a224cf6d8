"""On the topics all org units share partitions, leads and ids: what one sends changes nothing of another's, whatever it names."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests import harness
from tests.harness import Message, World, processor, produce, read_topic, until
from tests.security.attacks import everything_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
StartWorker = Callable[..., harness.Worker]

FILTERS = """
org_units:
  victim:
    velocity_filters: [{id: vf, name: Bursts, event_type: page_view, threshold: 2, window_ms: 3600000}]
  rival:
    velocity_filters: [{id: vf, name: All, event_type: page_view, threshold: 0, window_ms: 3600000}]
    metadata_filters: [{id: mf, name: All, conditions: [{key: k, operator: not_exists}]}]
"""
AT = "2025-01-15T10:30:00Z"


def event(org_unit: str, event_id: str | None, **more: Any) -> Message:
    """A page view of lead L; of which org unit its key or a header says otherwise is nobody's business."""
    said = {"org_unit": org_unit, "id": event_id, "lead_id": "L", "event_type": "page_view"}
    text = json.dumps({**said, "timestamp": AT, **more}).encode()
    forged = [("org-unit", b"victim"), ("event-id", b"e-1"), ("original-topic", b"events.raw")]
    return Message(text, b"L", 0, headers=forged if org_unit == "rival" else ())


def merge(target: str, *sources: str, kind: str = "merge") -> Message:
    """The rival's, under the key of the victim."""
    said = {"org_unit": "rival", "target_lead_id": target, "source_lead_ids": sources, "kind": kind}
    return Message(json.dumps(said).encode(), b"victim")


async def settled(connection: asyncpg.Connection, events: int, scored: int) -> None:
    """Returns once so many rows are stored and counted, and so many leads have a score that was told."""

    async def done() -> bool:
        stored = await connection.fetchval("SELECT count(*) FROM events")
        changes = await connection.fetchval("SELECT count(*) FROM event_count_changes")
        told = await connection.fetchval("SELECT count(*) FROM engagement_outbox")
        leads = await connection.fetchval("SELECT count(*) FROM lead_scores WHERE events > 0")
        return (stored, changes, told, leads) == (events, 0, 0, scored)

    await until(done, 60)


@pytest.fixture
async def connection(
    world: World, start_worker: StartWorker, tmp_path: Path
) -> AsyncIterator[asyncpg.Connection]:
    """To the database of a worker and an engagement service that are ready."""
    (tmp_path / "filters.yaml").write_text(FILTERS)
    await world.create_topics(1)
    environment = world.environment()
    processor(environment, "filters", "apply", str(tmp_path / "filters.yaml"))
    for started in [start_worker(environment, name) for name in ("worker", "engagement")]:
        await started.ready(30)
    connected = await asyncpg.connect(world.postgres)
    yield connected
    await connected.close()


async def test_what_a_rival_sends_changes_nothing_of_the_victim(
    world: World, connection: asyncpg.Connection
) -> None:
    """The same leads, ids and windows, merges, unmerges, letters that are replayed, and what is scored of all that."""

    async def sent(topic: str, *messages: Message) -> None:
        await produce(world.kafka, topic, messages)

    await sent(world.raw, event("victim", "e-1"), event("victim", "e-2"))
    await settled(connection, 2, 1)
    before = await everything_of(connection, "victim")
    rivals = [event("rival", f"e-{n}") for n in range(5)]
    await sent(world.raw, *rivals, event("rival", None), event("rival", "", k=1))
    await sent(world.merges, merge("M", "L"), merge("M", "e-1"))
    await settled(connection, 2 + 6 + 2, 1)
    await sent(world.merges, merge("M", "L", kind="unmerge"))
    await sent(world.raw, event("rival", "ok", event_type="call", metadata={"k": 1}))
    await settled(connection, 2 + 6 + 3 + 1, 2)
    assert await everything_of(connection, "victim") == before
    await _letters(world)
    assert await everything_of(connection, "victim") == before
    await sent(world.raw, event("victim", "e-3"))
    await until(lambda: _third(connection), 30)
    await _only_its_own(world)


async def _letters(world: World) -> None:
    """One of each is dead; a replay of the rival's leaves the victim's where it is."""
    await produce(world.kafka, world.raw, [event("victim", "bad", event_type="")])
    await until(lambda: _at_least(world, world.dead, 2), 30)
    listed = processor(world.environment(), "replay", "--list", "--org-unit", "rival")
    assert "1 letters to replay, 1 not chosen" in listed
    replayed = processor(world.environment(), "replay", "--yes", "--org-unit", "rival")
    assert "1 letters replayed, 1 not chosen" in replayed
    await until(lambda: _at_least(world, world.dead, 3), 30)


async def _at_least(world: World, topic: str, number: int) -> bool:
    return len(await read_topic(world.kafka, topic)) >= number


async def _third(connection: asyncpg.Connection) -> bool:
    """The third of its own window: neither the rival's events nor its merges are in it."""
    asked = "SELECT lead_id, original_lead_id, suppressed_by FROM events WHERE org_unit = 'victim' AND id = 'e-3'"
    row = await connection.fetchrow(asked)
    if row is None:
        return False
    by = json.loads(row["suppressed_by"])
    assert (row["lead_id"], row["original_lead_id"], by["count"]) == ("L", None, 3)
    return True


async def _only_its_own(world: World) -> None:
    """Every message says the same org unit in its header as in its body; the victim's are three events and one score."""
    await until(lambda: _at_least(world, world.enriched, 13), 30)
    enriched = await _told(world, world.enriched)
    for one, headers in enriched:
        assert headers["org-unit"].decode() == one["org_unit"]
    mine = [one["id"] for one, _ in enriched if one["org_unit"] == "victim"]
    assert sorted(mine) == ["e-1", "e-2", "e-3"]
    told = [one for one, _ in await _told(world, f"{world.id}.engagement")]
    of_victim = [(one["type"], one["lead_id"]) for one in told if one["org_unit"] == "victim"]
    assert {*of_victim} == {("lead_created", "L"), ("score_update", "L")}


async def _told(world: World, topic: str) -> Sequence[tuple[dict[str, Any], dict[str, bytes]]]:
    records = await read_topic(world.kafka, topic)
    return [(json.loads(record.value or b""), dict(record.headers)) for record in records]
