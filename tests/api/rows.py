"""Stored events without a worker: for what only reads them."""

from collections.abc import Iterable
from typing import Any

import asyncpg
import orjson

INSERT = """
INSERT INTO events (
    org_unit, id, lead_id, original_lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at, received_at,
    source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted, exceeded, deleted_at)
SELECT org_unit, id, lead_id, original_lead_id, event_type, metadata, suppression_reason, suppressed_by, ms_event(occurred_at),
    ms_event(occurred_at), 'events.raw', 0, n, occurred_at, n, 1, counted, exceeded,
    CASE WHEN deleted THEN now() END
FROM json_to_recordset($1::json) AS r (
    org_unit text, id text, lead_id text, original_lead_id text, event_type text, metadata jsonb, suppression_reason text,
    suppressed_by jsonb, occurred_at bigint, n bigint, counted boolean, exceeded jsonb, deleted boolean)
"""


def row(number: int, **more: Any) -> dict[str, Any]:
    """An organic page view of lead ``A`` at second `number`; its processing order is `number`."""
    given = {
        "org_unit": "acme",
        "id": f"evt-{number:06d}",
        "lead_id": "A",
        "event_type": "Page View",
        "metadata": {},
        "occurred_at": 1_700_000_000_000 + number * 1_000,
        "n": number,
        "counted": True,
        "deleted": False,
    }
    reason = more.get("suppression_reason")
    by = {"filter_id": "vf-1", "filter_version": 1, "filter_name": "Bursts"}
    return {**given, **({"suppressed_by": by} if reason else {}), **more}


async def store(database: asyncpg.Pool, rows: Iterable[dict[str, Any]]) -> None:
    """Adds them to the table, in one statement."""
    await database.execute(INSERT, orjson.dumps(list(rows)).decode())
