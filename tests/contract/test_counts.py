"""Totals and pages of listings are those of a plain look at all rows, whatever happened to them and whatever is folded yet."""

import asyncio
import random
from functools import partial

import pytest

from processor.io import listing, merges
from processor.io.counts import folder
from processor.io.listing import Chosen
from processor.io.migrate import MIGRATIONS, migrate
from processor.io.postgres import Postgres
from processor.pure.types import Event, Root
from tests import harness
from tests.contract.count_world import (
    LEADS,
    START,
    TYPES,
    Row,
    check,
    every_row,
    ingest,
    reader,
    ruling,
    some_events,
)
from tests.contract.merge_world import ORG, People, again, people
from tests.harness_waiting import until

__all__ = ["people"]
pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]
COUNTED = "INSERT INTO counted_leads (org_unit, lead_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
MANY = """INSERT INTO events (org_unit, id, lead_id, event_type, metadata, occurred_at, received_at, source_topic,
        source_partition, source_offset, batch, rules, counted)
    SELECT 'acme', $1 || g, $1, 'Page View', '{}', ms_event(1700000000000 + g), now(), 't', 0, g, 1, 1, true
    FROM generate_series(0, 5000) g"""
IN_ORG_UNITS = """INSERT INTO events (org_unit, id, lead_id, event_type, metadata, occurred_at, received_at, source_topic,
        source_partition, source_offset, batch, rules, counted)
    SELECT 'ou-' || o, 'e' || $1 || '-' || g, 'a', CASE o % 2 WHEN 0 THEN 'Page View' ELSE 'Email Open' END, '{}',
        ms_event(1700000000000 + g * 1000), now(), 't', 0, g, 1, 1, true
    FROM generate_series(1, 40) o CROSS JOIN LATERAL generate_series(1, CASE WHEN o <= 2 THEN 2500 ELSE o END) g"""
OF_ORG_UNITS = """SELECT org_unit, count(*), event_rank(org_unit, '', 15, NULL), event_rank(org_unit, 'Page View', 15, NULL),
        (SELECT sum(count) FROM suppression_counts s WHERE s.org_unit = e.org_unit),
        (SELECT max(chosen(c, 15)) FROM event_counts c WHERE c.org_unit = e.org_unit AND c.event_type = '' AND NOT split)
    FROM events e GROUP BY org_unit"""
TOMBSTONES = "UPDATE events SET deleted_at = now(), metadata = '{}' WHERE id = ANY ($1::text[])"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_anything_at_all_listings_are_what_the_rows_say(
    people: People, database: str, seed: int
) -> None:
    """Ingest, duplicates, deletes, removals, merges, unmerges, moves and folds in any order."""
    chance = random.Random(seed)
    api = await reader(database)
    sent: list[Event] = []
    for step in range(25):
        await _add(people, chance, sent, step)
        await _disturb(people, chance, sent)
        rows = await every_row(people.pool)
        for _ in range(6):
            await check(api, rows, chance)
    levels = await people.pool.fetchval("SELECT min(level) FROM event_counts")
    assert levels <= 2, "the trie was never deep"
    assert await people.pool.fetchval("SELECT count(*) FROM counted_leads WHERE ready") > 1
    await api.close()


async def _add(people: People, chance: random.Random, sent: list[Event], step: int) -> None:
    """New events, and now and then some that are known."""
    size = chance.choice((1, 40, 400, 1500))
    events = some_events(people, chance, [f"e{step}-{n}" for n in range(size)])
    again_too = chance.sample(sent, min(len(sent), chance.choice((0, 0, 20))))
    await ingest(people, [*events, *again_too])
    sent += events


async def _disturb(people: People, chance: random.Random, sent: list[Event]) -> None:
    some = [event.id for event in chance.sample(sent, min(5, len(sent)))]
    await people.pool.execute(TOMBSTONES, some)
    if chance.random() < 0.3:
        gone = [event.id for event in chance.sample(sent, 3)] if len(sent) > 3 else []
        await people.pool.execute("DELETE FROM events WHERE id = ANY ($1::text[])", gone)
        sent[:] = [event for event in sent if event.id not in gone]
    if chance.random() < 0.4:
        await chance.choice((people.merge, people.unmerge))(*chance.sample(LEADS, 3))
    for _ in range(chance.randrange(3)):
        await merges.move_step(people.postgres, 50)
    if chance.random() < 0.3:
        await people.pool.execute(COUNTED, ORG, chance.choice(LEADS))
    for _ in range(chance.randrange(3)):
        await people.pool.fetchval("SELECT fold_counts($1)", chance.choice((1, 2, 100)))
        await people.pool.fetchval("SELECT count_leads()")


async def test_many_at_once_never_wait_for_counts_and_lose_none(
    people: People, database: str
) -> None:
    """Four lanes, deletes and two folders at the same time; in between, every listing adds up."""
    chance = random.Random(5)
    api = await reader(database)
    async with asyncio.TaskGroup() as around:
        folders = [around.create_task(folder(people.postgres, 0.01)) for _ in range(2)]
        async with asyncio.TaskGroup() as work:
            for lane in range(4):
                work.create_task(_lane(people, chance, lane))
            work.create_task(_look(api))
            work.create_task(_count_leads(people))
        for each in folders:
            each.cancel()
    rows = await every_row(people.pool)
    for _ in range(30):
        await check(api, rows, chance)
    await api.close()


async def _lane(people: People, chance: random.Random, lane: int) -> None:
    for batch in range(12):
        events = some_events(people, chance, [f"w{lane}-{batch}-{n}" for n in range(100)])
        await again(partial(ingest, people, events))
        await people.pool.execute(TOMBSTONES, [event.id for event in events[:3]])


async def _count_leads(people: People) -> None:
    """One lead after the other, while events of it are on their way; the folders make their counts."""
    ready = "SELECT count(*) FROM counted_leads WHERE ready"
    for number, lead in enumerate(LEADS[:4], 1):
        await people.pool.execute(COUNTED, ORG, lead)
        await until(partial(_are_so_many, people, ready, number), 30)


async def _are_so_many(people: People, query: str, number: int) -> bool:
    return bool(await people.pool.fetchval(query) >= number)


async def _look(api: Postgres) -> None:
    """The parts of a total add up, whenever they are looked at together."""
    for _ in range(40):
        async with api.of_org_unit(ORG) as connection:
            query = "SELECT (SELECT count(*) FROM events WHERE deleted_at IS NULL), event_rank($1, '', 15, NULL)"
            (row,) = await connection.fetch(query, ORG)
        assert row[0] == row[1]


async def test_a_batch_waits_for_no_other_batch_because_of_counts(people: People) -> None:
    """While one transaction has counted its events and is still open, another lane commits."""
    first = some_events(people, random.Random(1), ["a"])
    second = some_events(people, random.Random(2), ["b"])
    async with people.open() as connection:
        rulings = [ruling(first[0], Root(first[0].lead_id, 0))]
        assert await people.recorded(rulings, connection, partition=1)
        async with asyncio.timeout(3):
            await ingest(people, second)
            assert await people.pool.fetchval("SELECT fold_counts(100)") == 1
    assert await people.pool.fetchval("SELECT count(*) FROM event_count_changes") == 1


async def test_one_fold_is_of_all_org_units(people: People) -> None:
    """So that it costs no more where the same events are of very many; each has its own counts, deep where it has many events."""
    for batch in ("1", "2"):
        await people.pool.execute(IN_ORG_UNITS, batch)
    assert await people.pool.fetchval("SELECT fold_counts(100)") == 80
    assert await people.pool.fetchval("SELECT fold_counts(100)") is None
    for org_unit, stored, every, views, hours, largest in await people.pool.fetch(OF_ORG_UNITS):
        assert every == hours == stored
        assert views == (stored if int(org_unit[3:]) % 2 == 0 else 0)
        assert largest <= 2048, "a node that holds too much is split"


async def test_a_fold_takes_no_more_than_it_can_bear(people: People) -> None:
    """However many changes it may take: the oldest first, as many of them as have half a million events together."""
    note = """INSERT INTO event_count_changes (org_unit, leads, event_types, reasons, filter_ids, slots, counts)
        SELECT 'many', array_fill(''::text, $1), array_fill('Page View'::text, $1), array_fill(0::smallint, $1),
            array_fill(''::text, $1), ARRAY(SELECT generate_series(1, ($1::integer[])[1])), array_fill(1::bigint, $1)"""
    for size in (300_000, 300_000, 10):
        await people.pool.execute(note, [size])
    assert await people.pool.fetchval("SELECT fold_counts(100)") == 2
    assert await people.pool.fetchval("SELECT fold_counts(100)") == 1


async def test_a_large_lead_gets_counts_of_its_own(people: People, database: str) -> None:
    """Where somebody lists it, and where ANALYZE has found it."""
    await people.pool.execute(MANY, "listed")
    await people.pool.execute(MANY, "found")
    api = await reader(database)
    chosen = Chosen(ORG, since=START + 10)
    before = await listing.of_lead(api, chosen, "listed", 40, 100)
    await people.pool.execute("ANALYZE events")
    task = asyncio.create_task(folder(people.postgres, 0.01))
    await until(lambda: _are_ready(people, {"listed", "found"}), 30)
    task.cancel()
    after = await listing.of_lead(api, chosen, "listed", 40, 100)
    await api.close()
    assert before
    assert after
    assert (before.total, after.total) == (4991, 4991)
    assert [row["id"] for row in before.rows] == [row["id"] for row in after.rows]


async def _are_ready(people: People, leads: set[str]) -> bool:
    rows = await people.pool.fetch("SELECT lead_id FROM counted_leads WHERE ready")
    return {row["lead_id"] for row in rows} == leads


async def test_a_worker_folds_what_lanes_have_noted(people: People) -> None:
    """Until nothing is left."""
    await ingest(people, some_events(people, random.Random(1), [f"e{n}" for n in range(50)]))
    task = asyncio.create_task(folder(people.postgres, 0.01))
    changes = "SELECT count(*) FROM event_count_changes"
    await until(lambda: _is_none_left(people, changes))
    task.cancel()
    counted = await people.pool.fetchval(
        "SELECT sum(chosen(c, 15)) FROM event_counts c WHERE lead_id = '' AND event_type = '' AND level = 8"
    )
    assert counted == 50


async def _is_none_left(people: People, query: str) -> bool:
    return bool(await people.pool.fetchval(query) == 0)


async def test_what_is_stored_before_the_counts_are_there_is_counted_by_the_migration(
    empty_database: str,
) -> None:
    """An upgrade counts every row of the program before."""
    await migrate(empty_database, [one for one in MIGRATIONS if one.version < 6])
    insert = """INSERT INTO events (org_unit, id, lead_id, event_type, metadata, occurred_at, received_at, source_topic,
            source_partition, source_offset, batch, rules, counted, deleted_at)
        SELECT 'acme', 'e' || g, 'L1', 'Page View', '{}', ms_event(1700000000000 + g), now(), 't', 0, g, 1, 1, true,
            CASE WHEN g % 10 = 0 THEN now() END FROM generate_series(1, 5000) g"""
    harness.execute(empty_database, insert)
    await migrate(empty_database)
    api = await reader(empty_database)
    found = await listing.events(api, Chosen(ORG, since=START + 1001), 3, 25)
    await api.close()
    assert found.total == 3600
    assert [row["occurred_at"] - START for row in found.rows[:2]] == [4944, 4943]


async def test_types_and_hours_are_counted_too(people: People, database: str) -> None:
    """Folded or not, without what is deleted."""
    events = some_events(people, random.Random(3), [f"e{n}" for n in range(300)])
    await ingest(people, events[:200])
    await people.pool.fetchval("SELECT fold_counts(100)")
    await ingest(people, events[200:])
    await people.pool.execute(TOMBSTONES, [event.id for event in events[:10]])
    rows = await every_row(people.pool)
    api = await reader(database)
    types = {row["event_type"]: row["count"] for row in await listing.event_types(api, ORG)}
    hours = await listing.suppression(api, ORG, -(10**6) * 600, 10**6 * 3000)
    await api.close()
    assert types == {t: n for t in TYPES if (n := sum(row.event_type == t for row in rows))}
    told: dict[tuple[int, str | None, str], int] = {}
    for row in hours:
        reason = listing.REASONS[row["reason"]] if row["reason"] else None
        key = (row["hour"], reason, row["event_type"])
        told[key] = told.get(key, 0) + row["count"]
    assert told == _by_hour(rows)


def _by_hour(rows: list[Row]) -> dict[tuple[int, str | None, str], int]:
    counted: dict[tuple[int, str | None, str], int] = {}
    for row in rows:
        key = (row.at // 3_600_000, row.reason, row.event_type)
        counted[key] = counted.get(key, 0) + 1
    return counted
