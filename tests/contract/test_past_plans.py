"""How Postgres finds the past of windows: a session keeps the plans of its first minutes, when the table was small."""

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from processor.io.postgres import QUERIES

pytestmark = pytest.mark.contract
FIRST_EVENTS = """
INSERT INTO events (org_unit, id, lead_id, event_type, metadata, occurred_at, received_at, source_topic, source_partition,
    source_offset, batch, rules, counted)
SELECT 'acme', 'evt-' || n, 'ld', 'Page View', '{}', now(), now(), 'events.raw', 0, n, 1, 1, true FROM generate_series(1, 100) n
"""
ARGUMENTS = {
    "window_members": ["text[]"] * 3 + ["bigint[]"] * 2 + ["integer[]", "bigint", "bigint"],
    "window_exceeding": ["text[]"] * 3 + ["bigint[]"] * 2 + ["text[]"],
    "past_begins": ["text", "text[]", "text"] + ["bigint"] * 4,
    "past_members": ["text", "text[]", "text"] + ["bigint"] * 2,
    "seen_in_store": ["text[]"] * 3 + ["bigint[]"] * 2 + ["integer[]"] + ["text[]"] * 4,
}
A_VALUE = {"text[]": "'{x}'", "bigint[]": "'{1}'", "integer[]": "'{1}'", "text": "'x'", "bigint": "1"}  # fmt: skip


@pytest.fixture
async def fresh(database: str) -> AsyncIterator[asyncpg.Connection]:
    """To a database in which nothing has happened yet."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def connection(fresh: asyncpg.Connection) -> asyncpg.Connection:
    """To one in which one lead has had its first hundred events, and nobody has looked at the table yet."""
    await fresh.execute(FIRST_EVENTS)
    return fresh


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_the_past_is_found_by_lead_and_time_also_by_a_plan_for_a_small_table(
    connection: asyncpg.Connection, name: str
) -> None:
    """Such a plan would otherwise pass over the org unit or the table for each window; events themselves are found by their ids."""
    types = ARGUMENTS[name]
    async with connection.transaction():
        await connection.execute(QUERIES["by_keys"])
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE asked({', '.join(types)}) AS {QUERIES[name]}")
        values = ", ".join(A_VALUE[one] for one in types)
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE asked({values})")
    plan = "\n".join(row[0] for row in rows)
    looks = re.findall(r"(\w+ )?Scan (?:Backward )?(?:using (\w+) )?on events\b.*\n(.*)", plan)
    assert looks, plan
    for _, index, condition in looks:
        time = index in {"events_by_lead", "events_exceeding"} and "(lead_id = " in condition
        assert time or (index == "events_pkey" and "(id >= " in condition), plan


async def test_ids_that_come_again_are_found_by_their_keys_also_in_a_session_that_began_with_nothing(
    fresh: asyncpg.Connection,
) -> None:
    """To an empty table the index of leads is as good: each id would cost a look at the whole org unit from then on."""
    ask = "SELECT cardinality(known_events(ARRAY[1, 2], ARRAY['acme', 'acme'], ARRAY['evt-1', 'evt-100']))"
    for _ in range(10):
        assert await fresh.fetchval(ask) is None
    await fresh.execute(FIRST_EVENTS)
    for _ in range(10):
        assert await fresh.fetchval(ask) == 2
    await fresh.execute("SELECT pg_stat_force_next_flush()")
    read = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'events' AND indexrelname <> 'events_pkey'"
    assert await fresh.fetchval(read) == 0
