"""What a purge removes of engagement: events that are gone, and old surges; sums stay."""

import pytest

from processor.io import purge
from processor.io.postgres import Postgres
from processor.pure.enriched import Organic
from tests.contract.engagement_world import RULE, START, Engaged, engaged
from tests.contract.merge_world import ORG

pytestmark = [pytest.mark.contract]
OLD = """
UPDATE events SET received_at = ms_event($1), occurred_at = ms_event($1) WHERE id = ANY ($2::text[])"""
LATER = "UPDATE events SET received_at = ms_event($1), occurred_at = ms_event($1)"
DELETED = "UPDATE events SET deleted_at = now(), metadata = '{}' WHERE id = $1"
SUMS = ("engaged_leads", "lead_sessions", "lead_scores")


def event(event_id: str, at: int) -> Organic:
    """Of a type that surges."""
    return Organic(ORG, event_id, "a", "Page View", at)


async def purged(database: str, cutoff: int) -> None:
    """Everything before a time, two rows in a step."""
    postgres = await Postgres.connect(database, size=1)
    order = purge.Order(cutoff, "raw", (), "cli ann", {})
    await purge.purge(postgres, order, lambda org_unit, number: None, 2)
    await postgres.close()


async def ids(world: Engaged) -> set[str]:
    """Of the events that are known to have counted."""
    return {row[0] for row in await world.pool.fetch("SELECT id FROM engaged_events")}


async def test_events_and_surges_go_and_sums_stay(database: str) -> None:
    """Deleted events go as well; one that occurred long ago and has just come stays, or it could count twice."""
    new = START + 10 * RULE.window_ms
    async with engaged(database) as world:
        await world.people.ingest(*[(f"e{n}", "a") for n in range(6)], ("late", "a"), ("new", "a"))
        old = [f"e{n}" for n in range(6)]
        await world.pool.execute(LATER, new)
        await world.pool.execute(OLD, START, old)
        await world.pool.execute(DELETED, "e5")
        counted = [event(one, START) for one in (*old, "late")]
        await world.apply(0, *counted, event("new", new))
        await world.pool.execute("INSERT INTO lead_surges SELECT 'acme', 'a', ms_event($1)", new)
        before = await world.state()
        assert len(before["lead_surges"]) == 2
        await purged(database, START + 1)
        after = await world.state()
        assert await ids(world) == {"late", "new"}
        assert [row[2] for row in after["lead_surges"]] == [before["lead_surges"][1][2]]
        assert {table: after[table] for table in SUMS} == {table: before[table] for table in SUMS}


async def test_an_id_is_free_for_both_or_for_neither(database: str) -> None:
    """What comes again under an id that was purged counts; what was not purged does not count again."""
    async with engaged(database) as world:
        await world.people.ingest(("gone", "a"), ("kept", "a"))
        await world.pool.execute(LATER, START + 10)
        await world.pool.execute(OLD, START, ["gone"])
        await world.apply(0, event("gone", START), event("kept", START))
        await purged(database, START + 1)
        applied = await world.apply(0, event("gone", START + 20), event("kept", START))
        assert applied.counted == 1
        assert await ids(world) == {"gone", "kept"}
