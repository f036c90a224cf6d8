"""Engagement as its processes have made it, beside a recount from the events: read from tables and topics alone."""

import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from tests.harness import World, read_topic, until
from tests.oracle_engagement import NO_ENGAGEMENT, WEEK, Recounted, recount

ORG = "acme"
WEIGHTS = {"Page View": 1.0, "Email Open": 0.5, "Form Submit": 10.0}
SURGE = frozenset({"Page View", "Form Submit"}), 4, 600_000
ENVIRONMENT = {
    "ENGAGEMENT_WEIGHTS": "page_view=1,email_open=0.5,form_submit=10",
    "SURGE_TYPES": "page_view,form_submit",
    "SURGE_THRESHOLD": "4",
    "SURGE_WINDOW": "10m",
}
EVENTS = """
SELECT id, coalesce(original_lead_id, lead_id) AS lead, event_type AS type, event_ms(occurred_at) AS at, suppression_reason AS reason
FROM events WHERE org_unit = $1
"""
STORED = """
SELECT (SELECT count(*) FROM events WHERE event_type NOT LIKE 'Lead %'), (SELECT count(*) FROM merges WHERE counting IS NULL)
"""
LEADS = """
SELECT root AS lead, sum(events)::bigint AS events, event_ms(min(first_at)) AS first, event_ms(max(last_at)) AS last,
    array_agg(week) AS weeks, array_agg(total) AS totals, (
        SELECT array_agg(ARRAY[event_ms(s.started_at), event_ms(s.ended_at), s.events] ORDER BY s.started_at)
        FROM class_sessions($1, lead_class($1, root)) s) AS sessions
FROM engaged_leads l
LEFT JOIN lead_redirects r ON r.org_unit = $1 AND r.from_lead = l.lead_id
CROSS JOIN LATERAL (SELECT coalesce(r.to_lead, l.lead_id) AS root) c
WHERE l.org_unit = $1 GROUP BY root
"""


async def recounted(connection: asyncpg.Connection) -> dict[str, Recounted]:
    """From what the worker has stored."""
    rows = [dict(row) for row in await connection.fetch(EVENTS, ORG)]
    redirects = await connection.fetch("SELECT from_lead, to_lead FROM lead_redirects")
    roots = {row["from_lead"]: row["to_lead"] for row in redirects}
    return recount(rows, roots, WEIGHTS, SURGE)


async def settled(
    connection: asyncpg.Connection, events: int, merges: int, seconds: float = 60
) -> None:
    """Returns once so many are stored, every organic event is counted, every merge followed and everything told."""

    async def done() -> bool:
        (stored,) = await connection.fetch(STORED)
        if tuple(stored) != (events, merges):
            return False
        wanted = await recounted(connection)
        rows = await connection.fetch("SELECT lead_id, events FROM lead_scores WHERE events > 0")
        counted = {row["lead_id"]: row["events"] for row in rows}
        untold = await connection.fetchval("SELECT count(*) FROM engagement_outbox")
        return not untold and counted == {lead: own.events for lead, own in wanted.items()}

    await until(done, seconds)


async def assert_equal_to_a_recount(connection: asyncpg.Connection) -> dict[str, Recounted]:
    """Leads, scores, sessions, first and last event; what is suppressed is nowhere."""
    wanted = await recounted(connection)
    found = {row["lead"]: row for row in await connection.fetch(LEADS, ORG)}
    assert found.keys() == wanted.keys()
    for lead, own in wanted.items():
        row = found[lead]
        assert (row["events"], row["first"], row["last"]) == (own.events, own.first, own.last)
        assert [tuple(session) for session in row["sessions"]] == own.sessions
        parts = zip(row["weeks"], row["totals"], strict=True)
        score = sum(total * 2.0 ** (week - own.last / WEEK) for week, total in parts)
        assert score == pytest.approx(own.score(own.last), rel=1e-9)
    ids = {row["id"] for row in await connection.fetch("SELECT id FROM engaged_events")}
    rows = await connection.fetch(EVENTS, ORG)
    assert ids == {r["id"] for r in rows if r["reason"] is None and r["type"] not in NO_ENGAGEMENT}
    return wanted


async def told(world: World) -> list[dict[str, Any]]:
    """What is on the engagement topic, by partition and offset; each under its lead's key."""
    records = await read_topic(world.kafka, f"{world.id}.engagement")
    said = [json.loads(record.value or b"") for record in records]
    assert [one["lead_id"].encode() for one in said] == [record.key for record in records]
    return said


def last_scores(said: list[dict[str, Any]]) -> Mapping[str, tuple[float, str]]:
    """The score told last of each lead, and as of when."""
    updates = [one for one in said if one["type"] == "score_update"]
    return {one["lead_id"]: (one["score"], one["at"]) for one in updates}


def enriched(event_id: str, lead: str = "lead-1", **more: object) -> bytes:
    """An organic event as the worker publishes it."""
    at = "2026-03-01T00:00:00.000Z"
    said = {
        "id": event_id,
        "org_unit": "acme",
        "lead_id": lead,
        "original_lead_id": None,
        "event_type": "Page View",
        "metadata": {},
        "suppression_reason": None,
        "created_at": at,
        "received_at": at,
        "suppressed_by": None,
        **more,
    }
    return json.dumps(said).encode()
