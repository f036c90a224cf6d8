"""Input as it should not be: twice, again from the start, late, spoilt, deleted, and judged while the rules change."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from processor.io import filters, listing
from processor.io.postgres import Postgres
from schemas import FilterFile
from tests.faults.evidence import Evidence
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import FILTERS, ORG_UNITS, Load, Mix
from tests.faults.matrix import Bitten, row
from tests.faults.promise import Promise
from tests.faults.steps import goes_on, rewind
from tests.traffic_bad import BAD, ODD_BUT_GOOD

LATENESS_S = 10
DELETED_AT_ONCE = 100
DELETES = 20
RELOAD_S = 0.3
RELOADS = 50
CALM_RATE = 200
"""A batch of more takes longer than the rules stay, and waits for the end of the changes."""
OLDER_RULES = """
    SELECT count(*) FROM (SELECT rules, max(rules) OVER (ORDER BY batch) AS before FROM events) rows WHERE rules < before
"""
NO_SUCH_VERSION = """
    SELECT count(*) FROM events e WHERE suppressed_by IS NOT NULL AND (
        SELECT version FROM filter_versions v
        WHERE v.org_unit = e.org_unit AND v.id = e.suppressed_by ->> 'filter_id' AND v.revision <= e.rules
        ORDER BY v.revision DESC LIMIT 1
    ) IS DISTINCT FROM (e.suppressed_by ->> 'filter_version')::integer
"""


@row("every second message a duplicate, half of them with another body")
async def duplicated(field: Field) -> Bitten:
    """A known id leaves no trace, whatever the message says, also when workers die in between."""
    field.load = Load(field.seed, PARTITIONS, mix=Mix(again=0.5))
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        dead = await field.strike("after_record", "SIGKILL")
        await dead.ended()
        await field.start()
    field.heal()
    return Bitten(await field.metric("processor_duplicates_total"), "duplicates counted")


@row("the whole input processed again from its start")
async def replayed(field: Field) -> Bitten:
    """Offsets are set back while more comes in: no new row, no other verdict, and each message publishes once more what it did."""
    await field.start(2)
    await field.send(field.events)
    first = await field.settle()
    await rewind(field)
    async with field.sending(field.events // 5):
        await field.start(2)
    field.heal()
    return await _once_more(field, first)


@row("half of the events out of order, a tenth of them hours late")
async def late(field: Field) -> Bitten:
    """Judged as if they had come in time: from Postgres where windows do not reach them any more."""
    mix = Mix(late=0.5, late_ms=40_000, ancient=0.1)
    field.load = Load(field.seed, PARTITIONS, mix=mix)
    field.environment |= {"ALLOWED_LATENESS": f"{LATENESS_S}s", "MAX_FUTURE": f"{LATENESS_S}s"}
    field.promise = Promise(lateness_ms=LATENESS_S * 1_000)
    await field.start(2)
    await field.send(field.events)
    field.heal()
    await field.settle()
    return Bitten(await field.metric("processor_late_events_total"), "events judged from Postgres")


@row(f"poison: {len(BAD)} kinds of bad messages, a fifth of all")
async def poisoned(field: Field) -> Bitten:
    """JSON bombs, NUL, drifted schemas, 101 KB: a dead letter for each, and nobody waits or dies of it."""
    mix = Mix(
        bad=0.2,
        odd=0.05,
        bad_kinds=tuple(BAD.values()),
        odd_kinds=tuple(ODD_BUT_GOOD.values()),
    )
    field.load = Load(field.seed, PARTITIONS, mix=mix)
    workers = await field.start(2)
    await field.send(field.events)
    field.heal()
    found = await field.settle()
    assert all(worker.running for worker in workers)
    assert await field.metric("processor_stopped_lanes") == 0
    assert len(found.letters) == field.bad, "a dead letter for each bad message"
    return Bitten(len(found.letters), "dead letters")


@row("events deleted, and the whole input processed again")
async def deleted(field: Field) -> Bitten:
    """Deleted while they come in and while workers die: a tombstone stays one and is published no more."""
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        async with _database(field) as postgres, asyncio.TaskGroup() as both:
            both.create_task(_delete(field, postgres))
            dead = await field.strike("after_record", "SIGKILL")
            await dead.ended()
            await field.start()
    first = await field.settle()
    await rewind(field)
    await field.start(2)
    field.heal()
    await _once_more(field, first)
    return Bitten(len(field.history.deleted), "events deleted")


@row(f"filters changed every {RELOAD_S * 1000:.0f} ms while workers die")
async def reloaded(field: Field) -> Bitten:
    """No row is judged by rules that were older than its commit, each names a version that was in force, and none is judged again."""
    await field.start(2)
    await field.send(field.events * 2 // 3)
    async with field.sending(field.events - field.events * 2 // 3, CALM_RATE):
        await goes_on(field)
        async with _database(field) as postgres, asyncio.TaskGroup() as both:
            changing = both.create_task(_change(field, postgres))
            for point in ("after_record", "mid_write"):
                dead = await field.strike(point, "SIGKILL")
                await dead.ended()
                field.launch()
            early = await _verdicts(field)
        assert changing.result() == RELOADS
    field.heal()
    await field.settle()
    later = await _verdicts(field)
    assert early.items() <= later.items(), "a verdict was revised"
    assert await field.ask(OLDER_RULES) == 0
    assert await field.ask(NO_SUCH_VERSION) == 0
    judged_by: int = await field.ask("SELECT count(DISTINCT rules) FROM events")
    return Bitten(judged_by - 1, "revisions that judged")


async def _once_more(field: Field, first: Evidence) -> Bitten:
    """Everything is as it was, and whatever was there before the inputs were set back is published once more, but for tombstones."""
    field.promise = Promise(passes=2)
    second = await field.settle()
    rows = {row.key: row for row in second.rows}
    before = {row.key for row in first.rows}
    assert all(rows[row.key] == row for row in first.rows), "a row has changed"
    times = Counter(message.key for message in second.published)
    once = Counter(message.key for message in first.published)
    wrong = {
        key
        for key, found in rows.items()
        if times[key] != once[key] + (not found.deleted if key in before else 1)
    }
    assert not wrong, f"{len(wrong)} published the wrong number of times: {sorted(wrong)[:3]}"
    letters = Counter(second.letters)
    assert all(letters[place] == 2 for place in first.letters), "letters are answers, too"
    return Bitten(sum(times.values()) - sum(once.values()), "messages published once more")


@asynccontextmanager
async def _database(field: Field) -> AsyncIterator[Postgres]:
    postgres = await Postgres.connect(field.world.postgres)
    try:
        yield postgres
    finally:
        await postgres.close()


async def _delete(field: Field, postgres: Postgres) -> None:
    """Events that came lately, as ``DELETE /events/batch`` does; what it acknowledges is deleted."""
    for number in range(DELETES):
        await goes_on(field, 2)
        org_unit = ORG_UNITS[number % len(ORG_UNITS)]
        wanted = "SELECT array_agg(id) FROM (SELECT id FROM events WHERE org_unit = $1 AND deleted_at IS NULL ORDER BY batch DESC LIMIT $2) e"
        ids: list[str] = await field.ask(wanted, org_unit, DELETED_AT_ONCE)
        assert await listing.delete(postgres, org_unit, ids, "faults") == len(ids)
        field.history.deleted |= {(org_unit, event_id) for event_id in ids}


async def _change(field: Field, postgres: Postgres) -> int:
    """One filter after the other, each change in force when it is made; how many there were."""
    document: dict[str, Any] = json.loads(json.dumps(FILTERS))
    for number in range(RELOADS):
        _turn(field, document["org_units"][ORG_UNITS[number % len(ORG_UNITS)]], number)
        await filters.apply(postgres, FilterFile.model_validate(document), "faults")
        await asyncio.sleep(RELOAD_S)
    return RELOADS


def _turn(field: Field, filters_of: dict[str, Any], number: int) -> None:
    """Another threshold or kind, window or end of it, or condition."""
    bursts, opens = filters_of["velocity_filters"]
    (bots,) = filters_of["metadata_filters"]
    match number // len(ORG_UNITS) % 3:
        case 0:
            bursts |= {"threshold": number % 7, "keep_first": field.random.random() < 0.5}
        case 1:
            opens |= {"window_ms": (number + 1) * 500, "enabled": field.random.random() < 0.8}
        case _:
            bots["conditions"][0]["value"] = f"bo{'t' * (number % 2)}"
            bots["name"] = f"Bots {number}"


async def _verdicts(field: Field) -> Mapping[str, object]:
    """Of everything stored so far."""
    found: str = await field.ask(
        "SELECT json_object_agg(org_unit || '/' || id, json_build_array(suppression_reason, suppressed_by, rules)) FROM events"
    )
    verdicts: dict[str, object] = json.loads(found)
    return verdicts
