"""Millions of stored events of the traffic's org units and leads, with the indexes and counts that the product would have left.

Rows are stored without indexes, which are made again afterwards as full as they are after random insertions.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from processor.bench.traffic import LEADS, ORG_UNITS

CHUNK = 250_000
SPAN_MS = 90 * 86_400_000
_FULL = 70
"""Per cent: a B-tree into which keys come in no order is two thirds full."""
_INSERT = f"""
INSERT INTO events (
    org_unit, id, lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at, received_at,
    source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted)
SELECT 'ou-' || lead % {ORG_UNITS}, 'evt-' || gen_random_uuid(), 'ld_' || lead,
    CASE WHEN kind < 45 THEN 'Page View' WHEN kind < 65 THEN 'Email Open' WHEN kind < 75 THEN 'Email Click'
        WHEN kind < 85 THEN 'Form Submit' WHEN kind < 95 THEN 'Email Sent' ELSE 'Meeting Booked' END,
    '{{"path": "/pricing", "referrer": "https://google.com", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}}',
    CASE WHEN g % 10 = 0 THEN 'inorganic' END,
    CASE WHEN g % 10 = 0 THEN '{{"filter_id": "vf-0000"}}'::jsonb END,
    ms_event(at), ms_event(at), 'stored', 0, g, at, g / 2000, revision, true
FROM rule_state, (
    SELECT g, floor(50 * power({LEADS / 50 + 1}, random()) - 50)::integer % {LEADS} AS lead, floor(100 * random()) AS kind,
        $3::bigint + g * {SPAN_MS} / $4::bigint AS at
    FROM generate_series($1::bigint, $2::bigint) g OFFSET 0) x
"""
"""Leads as the traffic has them: one of rank r is met 1 / (r + 50) as often."""
_INDEXES = (
    "SELECT indexdef FROM pg_indexes WHERE tablename = 'events' AND indexname <> 'events_pkey'"
)
_DROP = """
DO $$ DECLARE name text; BEGIN
    ALTER TABLE events DROP CONSTRAINT events_pkey;
    FOR name IN SELECT indexname FROM pg_indexes WHERE tablename = 'events' LOOP EXECUTE 'DROP INDEX ' || name; END LOOP;
    ALTER TABLE events DISABLE TRIGGER USER;
END $$
"""
_COUNT = """
ALTER TABLE events ENABLE TRIGGER USER;
TRUNCATE event_counts, suppression_counts, event_count_changes, lanes;
SELECT count_anew(org_unit, '') FROM (SELECT DISTINCT org_unit FROM events) o;
INSERT INTO suppression_counts (org_unit, hour, event_type, reason, filter_id, count)
SELECT org_unit, floor(event_ms(occurred_at) / 3600000.0)::bigint, event_type, reason_number(suppression_reason),
    coalesce(suppressed_by ->> 'filter_id', ''), count(*)
FROM events WHERE deleted_at IS NULL GROUP BY 1, 2, 3, 4, 5;
INSERT INTO lanes (topic, partition, newest) SELECT 'stored', 0, event_ms(max(occurred_at)) FROM events;
"""


async def store(database: str, events: int, until_ms: int) -> None:
    """Stores so many, evenly over the 90 days before `until_ms`, beside those that are there, and settles everything."""
    async with _connected(database) as one, _connected(database) as other:
        indexes = [row[0] for row in await one.fetch(_INDEXES)]
        await one.execute(_DROP)
        middle = events // 2
        async with asyncio.TaskGroup() as halves:
            halves.create_task(_insert(one, range(1, middle + 1), events, until_ms))
            halves.create_task(_insert(other, range(middle + 1, events + 1), events, until_ms))
        await _finish(one, indexes)


async def _insert(
    connection: asyncpg.Connection, numbers: range, events: int, until_ms: int
) -> None:
    for first in range(numbers.start, numbers.stop, CHUNK):
        last = min(first + CHUNK, numbers.stop) - 1
        await connection.execute(_INSERT, first, last, until_ms - SPAN_MS, events)


async def _finish(connection: asyncpg.Connection, indexes: Sequence[str]) -> None:
    await connection.execute("SET maintenance_work_mem = '1GB'; SET work_mem = '256MB'")
    await connection.execute(
        f"ALTER TABLE events ADD PRIMARY KEY (org_unit, id) WITH (fillfactor = {_FULL})"
    )
    for index in indexes:
        head, where, condition = index.partition(" WHERE ")
        await connection.execute(f"{head} WITH (fillfactor = {_FULL}){where}{condition}")
    await connection.execute(_COUNT)
    for table in ("events", "event_counts", "suppression_counts"):
        await connection.execute(f"VACUUM (ANALYZE) {table}")


@asynccontextmanager
async def _connected(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()
