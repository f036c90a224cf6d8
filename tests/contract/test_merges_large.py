"""Leads of very many events are merged and moved while ingest goes on."""

import asyncio

import asyncpg
import pytest
from msgspec.structs import replace

from processor.io import merges
from tests.contract.merge_world import ORG, People, people
from tests.harness_waiting import until

__all__ = ["people"]
EVENTS = 100_000
_LOAD = """INSERT INTO events (
    org_unit, id, lead_id, event_type, metadata, occurred_at, received_at,
    source_topic, source_partition, source_offset, batch, rules, counted)
SELECT $2, md5(n::text), 'A', (ARRAY['Page View', 'Email Open'])[1 + n % 2], '{"url": "/"}',
    'epoch'::timestamptz + n * interval '1 second', now(), 'raw', 0, n, 0, 1, true
FROM generate_series(1, $1::bigint) n"""

_EXPLAINED = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET client_min_messages = log",
)


@pytest.mark.timeout(240)
async def test_no_batch_waits_a_second_for_a_large_merge_or_its_move(people: People) -> None:
    """M3, M6: batches of the very leads that are merged and moved go on, and the count is exact."""
    await people.pool.execute(_LOAD, EVENTS, ORG)
    moves = [0]
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        lanes = [tasks.create_task(_lane(people, n, done)) for n in range(2)]
        merged = await merges.apply(people.postgres, people.command("B", "A"))
        mover = tasks.create_task(merges.mover(people.postgres, moves.append, 0.01))
        await until(lambda: sum(moves) >= merged.events_moved, 200)
        mover.cancel()
        done.set()
    assert min(lane.result() for lane in lanes) > 0
    assert merged.events_moved >= EVENTS
    assert await people.drain() == 0
    assert sum(moves) == merged.events_moved
    assert await people.bad() == []


async def test_a_large_move_goes_on_while_other_org_units_keep_merging(people: People) -> None:
    """Org units take turns: small merges that never end hold up nobody, and are not held up either."""
    await people.pool.execute(_LOAD, 100, "large")
    await merges.apply(people.postgres, replace(people.command("B", "A"), org_unit="large"))
    for n in range(10):
        await people.ingest((f"e{n}", f"S{n}"))
        await people.merge("T", f"S{n}")
        await merges.move_step(people.postgres, 20)
    await merges.move_step(people.postgres, 20)
    left = "SELECT count(*) FROM events WHERE org_unit = 'large' AND lead_id = 'A'"
    assert await people.pool.fetchval(left) == 0
    assert await people.bad() == []


async def test_the_moved_rows_of_a_counted_lead_are_compared_by_a_hash_join(
    people: People, database: str
) -> None:
    """What moves them looks rows up without joins of that kind; each row compared with each other takes seconds a chunk."""
    await people.pool.execute(_LOAD, 500, ORG)
    await people.pool.execute("INSERT INTO counted_leads (org_unit, lead_id) VALUES ('acme', 'A')")
    await merges.apply(people.postgres, people.command("B", "A"))
    plans: list[str] = []
    connection = await asyncpg.connect(database)
    connection.add_log_listener(lambda _, message: plans.append(message.message))
    for setting in _EXPLAINED:
        await connection.execute(setting)
    moved = await connection.fetchval("SELECT move_events(400)")
    await connection.close()
    (plan,) = [plan for plan in plans if "FROM was JOIN changed" in plan and "Join" in plan]
    assert moved == 400
    assert "Hash Join" in plan, plan


async def _lane(people: People, lane: int, done: asyncio.Event) -> int:
    """Batches until `done`, none of which waits a second for a lock; how many."""
    batches = 0
    async with people.pool.acquire() as connection:
        await connection.execute("SET lock_timeout = '1s'")
        while not done.is_set():
            events = [(f"lane{lane}-{batches}-{n}", "ABCD"[n % 4]) for n in range(100)]
            leads = [lead for _, lead in events]
            while not await people.record(events, await people.roots(leads), connection):
                pass
            batches += 1
    return batches
