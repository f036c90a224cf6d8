"""A lead of a million events: merged, parted, merged the other way round, its windows lost, while ingest goes on."""

from typing import Any

import asyncpg

from tests import harness
from tests.faults.evidence import BEFORE
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import FILTERS, Load
from tests.faults.matrix import Bitten, row
from tests.faults.steps import goes_on

EVENTS = 1_000_000
AT_ONCE = 50_000
ORG_UNIT = "initech"
SHARE = 0.5
"""Of the load, of the org unit that has the large lead."""
LEADS = ("big", "big", "small", *(f"other-{n}" for n in range(6)))
RATE = 300
MONTH_MS = 30 * 86_400_000
PAUSE_S = 1.0
MOVED_S = 300.0
MOVED = "processor_moved_events_total"
WATCHING: tuple[dict[str, Any], ...] = (
    {"id": "vf-second", "threshold": 1, "window_ms": 1_000, "keep_first": False},
    {"id": "vf-month", "threshold": 10_000, "window_ms": MONTH_MS, "keep_first": False},
    {"id": "vf-hour-first", "threshold": 50, "window_ms": 3_600_000, "keep_first": True},
)
STORE = """
INSERT INTO events (org_unit, id, lead_id, event_type, metadata, suppression_reason, suppressed_by, occurred_at, received_at,
    source_topic, source_partition, source_offset, source_timestamp, batch, rules, counted, exceeded)
SELECT $1, 'big-' || n, 'big', 'Page View', '{"path": "/pricing"}',
    CASE WHEN n > 10000 THEN 'inorganic' END, CASE WHEN n > 10000 THEN '{"filter_id": "vf-month"}'::jsonb END,
    at, at, $7, 0, n, event_ms(at), nextval('batches'), r.rules, true,
    CASE WHEN n > 50 THEN jsonb_build_object(r.hour, 'big-51') END
FROM generate_series($2::bigint, $3::bigint) n
CROSS JOIN LATERAL (SELECT ms_event($4::bigint - $5::bigint + n * $5::bigint / $6::bigint) AS at) t
CROSS JOIN (
    SELECT max(revision) AS rules, max(window_revision::text) FILTER (WHERE keep_first) AS hour
    FROM filters WHERE org_unit = $1) r
"""
LONGEST_PAUSE = """
SELECT extract(epoch FROM max(pause)) FROM (
    SELECT received_at - lag(received_at) OVER (PARTITION BY source_partition ORDER BY received_at) AS pause
    FROM events WHERE source_topic = $1) x
"""
STRANDED = """
SELECT count(*) FROM events
WHERE org_unit = $1 AND source_topic = $2 AND (lead_id <> 'big' OR original_lead_id IS NOT NULL)
"""


@row(
    "a lead of 1,000,000 events merged, parted and merged the other way round, its windows lost each time"
)
async def million(field: Field) -> Bitten:
    """No lane pauses for a second while it is merged and its rows move; the worker stays as small as ever, every row ends where it belongs.

    Parted, the windows of the lead that stays are found among the rows that have not left yet: that takes a month's window longer.
    """
    field.load = _Large(field.seed, PARTITIONS)
    await field.apply(_filters("first"))
    await _store(field)
    await field.apply(_filters("then"))
    await field.start()
    async with field.sending(rate=RATE):
        await goes_on(field)
        await _turned(field, "small", "big", "merge")
        await harness.until(lambda: _moved(field), MOVED_S)
        joined = await _longest_pause(field)
        await _forgotten(field)
        for target, source, kind in (("small", "big", "unmerge"), ("big", "small", "merge")):
            await _turned(field, target, source, kind)
            await _forgotten(field)
        # A million rows take their time, beside ingest as the others: nothing is wrong meanwhile.
        await harness.until(lambda: _moved(field), MOVED_S)
    field.heal()
    assert joined < PAUSE_S, f"a lane paused for {joined:.1f} s"
    assert await field.ask(STRANDED, ORG_UNIT, BEFORE) == 0
    moved, parted = int(await field.metric(MOVED)), await _longest_pause(field)
    return Bitten(
        moved,
        f"rows moved; longest pause of a lane: merged {joined:.2f} s, windows lost and parted {parted:.2f} s",
    )


async def _turned(field: Field, target: str, source: str, kind: str) -> None:
    """What is asked for is in force and counted, and lanes go on."""
    await field.merge(ORG_UNIT, target, source, kind=kind)
    await harness.until(lambda: _told(field), 60)
    await goes_on(field)


async def _forgotten(field: Field) -> None:
    """All windows are lost, and lanes go on."""
    harness.flush_redis(field.world.redis)
    await goes_on(field, 40)


async def _longest_pause(field: Field) -> float:
    """Of a lane so far, between commits of its events."""
    return float(await field.ask(LONGEST_PAUSE, field.world.raw))


class _Large(Load):
    """A load of which half is of the org unit that has the large lead, and much of that of this lead."""

    def _event(self) -> dict[str, Any]:
        event, r = super()._event(), self._random
        if r.random() < SHARE:
            event |= {"org_unit": ORG_UNIT, "lead_id": r.choice(LEADS), "event_type": "page_view"}
        return event


def _filters(name: str) -> dict[str, Any]:
    """Another name is another version, by which what is stored was not judged; windows mean what they meant."""
    own = [{**one, "name": name, "event_type": "page_view"} for one in WATCHING]
    return {"org_units": {**FILTERS["org_units"], ORG_UNIT: {"velocity_filters": own}}}


async def _store(field: Field) -> None:
    """A month of the lead, as the product would have stored it."""
    ends = field.load.now - 60_000
    database: Any = await asyncpg.connect(field.world.postgres)
    try:
        for first in range(1, EVENTS + 1, AT_ONCE):
            last = first + AT_ONCE - 1
            await database.execute(STORE, ORG_UNIT, first, last, ends, MONTH_MS, EVENTS, BEFORE)
            while await database.fetchval("SELECT fold_counts(100)") is not None:
                pass
        await database.execute("VACUUM (ANALYZE) events")
        await database.execute(
            "INSERT INTO counted_leads (org_unit, lead_id) VALUES ($1, 'big')", ORG_UNIT
        )
        while not await database.fetchval("SELECT count_leads()"):
            pass
    finally:
        await database.close()


async def _told(field: Field) -> bool:
    """Every merge so far is in force, and counted."""
    wanted = len(field.history.merges())
    done: int = await field.ask("SELECT count(*) FROM merges WHERE counting IS NULL")
    return done == wanted


async def _moved(field: Field) -> bool:
    left: int = await field.ask("SELECT count(*) FROM lead_moves")
    return left == 0
