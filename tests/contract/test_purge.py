"""What a purge removes, and that nothing else changes by it: counts, verdicts, merges, ids."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec.structs import replace

from processor.failures import Retryable, StartRefused
from processor.io import merges, purge
from processor.io.postgres import Postgres
from processor.io.store import Events
from processor.ports import Recorded
from processor.pure.types import Event, Root
from tests.contract.count_world import (
    LEADS,
    START,
    check,
    every_row,
    ingest,
    reader,
    ruling,
    some_events,
)
from tests.contract.merge_world import ORG, People, joined, people, record_merge

__all__ = ["people"]
pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]
FUTURE = 253_402_300_799_000
IDS = ["known", "new"]
T = TypeVar("T")
OLD = "UPDATE events SET received_at = ms_event($1) WHERE id = ANY ($2::text[])"
TOMBSTONES = "UPDATE events SET deleted_at = now(), metadata = '{}' WHERE id = ANY ($1::text[])"
AS_SOON_AS_IT_OCCURRED = "UPDATE events SET received_at = occurred_at"
WATCHED = """
CREATE TABLE removed (rows bigint);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO removed SELECT count(*) FROM gone; RETURN NULL; END $$;
CREATE TRIGGER watched AFTER DELETE ON event_counts
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION watch()"""
HELD_BACK = """
CREATE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'no rights'; END $$;
CREATE TRIGGER held_back BEFORE DELETE ON suppression_counts
    FOR EACH ROW WHEN (OLD.org_unit = 'acme') EXECUTE FUNCTION hold_back()"""

WAITS = """
CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(1, 1); RETURN NEW; END $$;
CREATE TRIGGER waits BEFORE INSERT ON %s FOR EACH ROW %s EXECUTE FUNCTION wait_for_the_test()"""


def order(cutoff: int, *held: purge.Held) -> purge.Order:
    """Everything before a time."""
    return purge.Order(cutoff, "raw", held, "cli ann", {"older_than": "180d"})


async def purged(postgres: Postgres, what: purge.Order, rows: int = 50) -> int:
    """How many events went."""
    found = await purge.purge(postgres, what, lambda org_unit, number: None, rows)
    return sum(found.gone.values())


async def ids(people: People) -> set[str]:
    """Of every row, tombstones included."""
    return {row[0] for row in await people.pool.fetch("SELECT id FROM events")}


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_purged_listings_are_what_the_rows_say(
    people: People, database: str, seed: int
) -> None:
    """Random events, deletes, merges, moves, folds and purges; totals are those of a plain look."""
    chance = random.Random(seed)
    api = await reader(database)
    for step in range(6):
        events = some_events(people, chance, [f"e{step}-{n}" for n in range(400)])
        await ingest(people, events)
        await _disturb(people, chance, events)
        wanted = await _wanted(people, cutoff := START + chance.randrange(30_000))
        left = await ids(people) - wanted
        assert await purged(people.postgres, order(cutoff), chance.choice((40, 200))) == len(wanted)
        assert await ids(people) == left
        rows = await every_row(people.pool)
        for _ in range(6):
            await check(api, rows, chance)
    await people.drain()
    assert await people.bad() == []
    await api.close()


async def test_an_id_that_is_purged_while_it_comes_again_is_recorded_anew(people: People) -> None:
    """Its row is there when the batch is inserted, and gone before it is read: no event is taken for new that has no row."""
    await ingest(people, again(people)[:1])
    await people.pool.execute(WAITS % ("events", "WHEN (NEW.id = 'new')"))
    store = Events(people.postgres)
    rulings = [ruling(event, Root("a", 0)) for event in again(people)]
    failure = await _purged_meanwhile(people, _fails(store.record(rulings, 1)))
    assert "purged meanwhile" in failure
    assert await ids(people) == set()
    answer = await store.record(rulings, 1)
    assert isinstance(answer, Recorded)
    assert not answer.known
    assert await ids(people) == set(IDS)


async def test_an_id_that_is_purged_once_it_was_read_is_purged_after_the_batch(
    people: People,
) -> None:
    """The batch answers with the row it found; whoever comes later is new."""
    await ingest(people, again(people)[:1])
    await people.pool.execute(WAITS % ("lanes", ""))
    store = Events(people.postgres)
    rulings = [ruling(event, Root("a", 0)) for event in again(people)]
    found = await _purged_meanwhile(people, store.record(rulings, 1))
    assert isinstance(found, Recorded)
    assert [*found.known] == [0]
    assert await ids(people) == {"new"}


def again(people: People) -> list[Event]:
    """The events of `IDS`."""
    return [replace(one, lead_id="a") for one in some_events(people, random.Random(1), IDS)]


async def _purged_meanwhile(people: People, recording: Coroutine[Any, Any, T]) -> T:
    """What comes of it where its only row is purged while it waits for the test."""
    async with asyncio.TaskGroup() as tasks:
        async with people.open() as holder:
            await holder.execute("SELECT pg_advisory_xact_lock(1, 1)")
            waiting = tasks.create_task(recording)
            await people.someone_waits()
            assert await purged(people.postgres, order(FUTURE)) == 1
        return await waiting


async def _fails(call: Coroutine[Any, Any, object]) -> str:
    with pytest.raises(Retryable) as caught:
        await call
    return str(caught.value)


async def _disturb(people: People, chance: random.Random, events: list[Event]) -> None:
    some = [event.id for event in chance.sample(events, 150)]
    await people.pool.execute(OLD, START, some)
    await people.pool.execute(TOMBSTONES, some[:20])
    await chance.choice((people.merge, people.unmerge))(*chance.sample(LEADS, 3))
    if chance.random() < 0.5:
        await merges.move_step(people.postgres, 50)
    if chance.random() < 0.5:
        lead = chance.choice(LEADS)
        insert = (
            "INSERT INTO counted_leads (org_unit, lead_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
        )
        await people.pool.execute(insert, ORG, lead)
    for _ in range(2):
        await people.pool.fetchval("SELECT fold_counts(100)")
        await people.pool.fetchval("SELECT count_leads()")


async def _wanted(people: People, cutoff: int) -> set[str]:
    """Ids of the rows that are old, by a plain look."""
    rows = await people.pool.fetch(
        "SELECT id FROM events WHERE occurred_at < ms_event($1) AND received_at < ms_event($1)",
        cutoff,
    )
    return {row[0] for row in rows}


async def test_counts_of_what_is_gone_are_gone(people: People) -> None:
    """Tries and hours hold no row of noughts for ever."""
    chance = random.Random(1)
    await ingest(people, some_events(people, chance, [f"e{n}" for n in range(3_000)]))
    await people.pool.execute("INSERT INTO counted_leads VALUES ('acme', 'L1')")
    for _ in range(4):
        await people.pool.fetchval("SELECT fold_counts(100)")
        await people.pool.fetchval("SELECT count_leads()")
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    assert await purged(people.postgres, order(FUTURE), 500) >= 2_900
    counts = "SELECT count(*) FROM event_counts WHERE slot >> 3 * (8 - level) < (slot_of(ms_event($1)) >> 24)"
    assert await people.pool.fetchval(counts, FUTURE) == 0
    assert await people.pool.fetchval("SELECT count(*) FROM suppression_counts") == 0
    assert await people.pool.fetchval("SELECT count(*) FROM event_count_changes") == 0


async def test_counts_go_in_small_steps_between_which_others_fold(people: People) -> None:
    """No transaction removes more rows of counts than a step has, and a trie that is half gone still counts."""
    await ingest(people, some_events(people, random.Random(1), [f"e{n}" for n in range(3_000)]))
    for _ in range(4):
        await people.pool.fetchval("SELECT fold_counts(100)")
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    await people.pool.execute(WATCHED)
    assert await purged(people.postgres, order(FUTURE), 40) >= 2_900
    steps = await people.pool.fetch("SELECT rows FROM removed")
    assert max(row[0] for row in steps) <= 40
    assert sum(row[0] for row in steps) > 80, "a step was enough"
    assert await people.bad() == []


async def test_an_org_unit_that_cannot_be_tidied_holds_up_no_other(people: People) -> None:
    """The others are, the end says which is left, and the next run does it although no event is there."""
    ours = some_events(people, random.Random(1), [f"e{n}" for n in range(30)])
    theirs = [msgspec.structs.replace(event, org_unit="zenith") for event in ours]
    await ingest(people, [*ours, *theirs])
    for _ in range(4):
        await people.pool.fetchval("SELECT fold_counts(100)")
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    await people.pool.execute(HELD_BACK)
    with pytest.raises(StartRefused, match=r"60 events are purged, but not .* of acme: no rights"):
        await purged(people.postgres, order(FUTURE))
    hours = "SELECT DISTINCT org_unit FROM suppression_counts"
    assert [row[0] for row in await people.pool.fetch(hours)] == [ORG]
    await people.pool.execute("DROP TRIGGER held_back ON suppression_counts")
    assert await purged(people.postgres, order(FUTURE)) == 0
    assert await people.pool.fetch(hours) == []


async def test_an_event_is_old_when_it_occurred_and_was_received_before(people: People) -> None:
    """A late one that has just come stays, and so does one that Kafka still holds."""
    events = some_events(people, random.Random(1), ["old", "late", "held", "early"])
    await ingest(people, events)
    await people.pool.execute("UPDATE events SET occurred_at = ms_event($1)", START)
    await people.pool.execute(OLD, START, ["old", "held", "early"])
    later = "UPDATE events SET occurred_at = ms_event($1) WHERE id = 'early'"
    await people.pool.execute(later, START + 10)
    offset = (await people.row("held"))["source_offset"]
    held = purge.Held(0, offset, offset + 1)
    found = await purge.purge(people.postgres, order(START + 5, held), lambda *_: None)
    assert found == purge.Found({ORG: 1}, 1)
    assert await ids(people) == {"late", "held", "early"}


async def test_an_id_that_was_purged_is_free(people: People) -> None:
    """What comes under it is a new event."""
    first, second = some_events(people, random.Random(1), ["again", "again"])
    await ingest(people, [first])
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    await purged(people.postgres, order(FUTURE))
    await ingest(people, [second])
    assert (await people.row("again"))["source_offset"] == second.record.offset


async def test_a_purge_says_in_the_audit_log_how_many_it_removed(people: People) -> None:
    """One entry for a run, whatever ends it: it grows with each step."""
    await ingest(people, some_events(people, random.Random(1), [f"e{n}" for n in range(30)]))
    await people.pool.execute("UPDATE events SET received_at = '-infinity', occurred_at = now()")
    heard: list[int] = []

    def hear(org_unit: str, number: int) -> None:
        heard.append(number)
        if number == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await purge.purge(people.postgres, order(FUTURE), hear, 10)
    rows = await people.pool.fetch("SELECT actor, action, subject, details FROM audit_log")
    assert [tuple(row)[:3] for row in rows] == [("cli ann", "event.purge", "20 events")]
    assert await purged(people.postgres, order(FUTURE), 10) == 10
    subjects = await people.pool.fetch("SELECT subject FROM audit_log ORDER BY id")
    assert [row[0] for row in subjects] == ["20 events", "10 events"]
    assert await purged(people.postgres, order(FUTURE), 10) == 0
    assert await people.pool.fetchval("SELECT count(*) FROM audit_log") == 2


async def test_ingest_does_not_wait_for_a_step(people: People) -> None:
    """While one stands open, a lane records events of the same leads."""
    await ingest(people, some_events(people, random.Random(1), [f"e{n}" for n in range(100)]))
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    async with people.open() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock_shared(7703, merge_mutex('acme'))")
        await connection.execute("DELETE FROM events")
        async with asyncio.timeout(3):
            await ingest(
                people, some_events(people, random.Random(2), [f"n{n}" for n in range(100)])
            )


async def test_rows_that_a_merge_still_has_to_count_stay_until_then(
    people: People,
) -> None:
    """`events_moved` tells of all that was there when the merge was committed."""
    await people.ingest(*[(f"e{n}", "B") for n in range(10)])
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    command = people.command("A", "B")
    assert await record_merge(people.pool, command, joined("A", "B"), countable=3)
    task = asyncio.create_task(purged(people.postgres, order(FUTURE)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.shield(task)
    assert len(await people.rows()) == 10
    merged = await merges.apply(people.postgres, command)
    assert merged.event
    assert await task == 11, "the event of the merge is old too"
    logged = await people.pool.fetchval("SELECT events_moved FROM merges")
    assert logged == 10


async def test_moves_and_deletes_at_the_same_time_deadlock_with_nothing(people: People) -> None:
    """They lock rows in the same order."""
    leads = [(f"e{n}", chr(ord("A") + n % 5)) for n in range(500)]
    await people.ingest(*leads)
    await people.pool.execute("UPDATE events SET received_at = '-infinity'")
    await people.merge("Z", "A", "B", "C", "D", "E")
    async with asyncio.TaskGroup() as scope:
        scope.create_task(_moves(people))
        scope.create_task(_deletes(people))
        gone = scope.create_task(purged(people.postgres, order(FUTURE - 1), 40))
    assert gone.result() == 501, "the event of the merge is old too"
    assert await people.rows() == {}


async def _moves(people: People) -> None:
    while await merges.move_step(people.postgres, 20) is not None:
        pass


async def _deletes(people: People) -> None:
    for begin in range(0, 500, 25):
        some = [f"e{n}" for n in range(begin, begin + 25)]
        locked = "SELECT id FROM events WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE"
        async with people.open() as connection:
            await connection.fetch(locked, some)
            await connection.execute(TOMBSTONES, some)
