"""Millions of stored events made by SQL, in the order in which they would have come."""

from collections.abc import AsyncIterator

import asyncpg

CHUNK = 50_000
HOT_LEAD, HOT_EVERY = "hot", 50
"""One lead in so many events: 100,000 of 5 million."""
INSERT = """
INSERT INTO events (
    org_unit, id, lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at, received_at,
    source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted)
SELECT $1, md5(g::text), CASE WHEN g % 50 = 0 THEN 'hot' ELSE 'ld_' || abs(hashint8(g)) % 200000 END,
    CASE WHEN g % 3001 = 0 THEN 'Rare' ELSE (ARRAY['Page View', 'Email Open', 'Form Submit', 'Ad Click'])[1 + (g % 7) % 4] END,
    '{"path": "/pricing", "referrer": "https://google.com"}',
    CASE WHEN g % 10 = 0 THEN 'inorganic' WHEN g % 37 = 0 THEN 'inorganic_grouped' WHEN g % 997 = 0 THEN 'metadata_filter' END,
    CASE WHEN g % 10 = 0 OR g % 37 = 0 OR g % 997 = 0 THEN '{"filter_id": "vf-1"}'::jsonb END,
    at, at, 'events.raw', 0, g, event_ms(at), 1, 1, true
FROM generate_series($2::bigint, $3::bigint) g
CROSS JOIN LATERAL (SELECT ms_event($4::bigint + (g * $5::double precision)::bigint) AS at) t
"""


async def fill(
    database: asyncpg.Connection, org_unit: str, events: int, first_ms: int, span_ms: int
) -> AsyncIterator[int]:
    """Stores `events` of an org unit evenly over `span_ms` from `first_ms` on; yields how many there are by now."""
    step = span_ms / events
    for first in range(1, events + 1, CHUNK):
        last = min(first + CHUNK - 1, events)
        await database.execute(INSERT, org_unit, first, last, first_ms, step)
        while await database.fetchval("SELECT fold_counts(100)") is not None:
            pass
        yield last


async def settle(database: asyncpg.Connection) -> None:
    """What autovacuum would have done by then."""
    for table in ("events", "event_counts", "event_count_changes", "suppression_counts"):
        await database.execute(f"VACUUM (ANALYZE) {table}")
    await database.execute("CHECKPOINT")
