"""Ingest, merges, unmerges and moves all at once, at random: afterwards the tables are what the log of merges says."""

import asyncio
import random
from functools import partial

from msgspec.structs import replace

from processor.io import merges
from processor.pure import merge
from processor.pure.merge import Forest
from processor.pure.types import MergeCommand
from tests.contract.merge_world import People, again, people
from tests.unit.merge_records import NO_RECORD

__all__ = ["people"]
LEADS = [f"L{n}" for n in range(12)]


async def test_ingest_merges_and_moves_converge(people: People) -> None:
    """With unmerges: no row lost or stranded, every decision that of the forest then, every count exact."""
    chance = random.Random(7)
    named: dict[str, str] = {}
    async with asyncio.TaskGroup() as tasks:
        movers = [tasks.create_task(_move(people)) for _ in range(2)]
        async with asyncio.TaskGroup() as work:
            for worker in range(4):
                work.create_task(_ingest(people, chance, worker, named))
            for _ in range(2):
                work.create_task(_merge(people, chance))
            work.create_task(_read(people))
        for mover in movers:
            mover.cancel()
    await people.drain(limit=50)
    assert await people.bad() == []
    assert await _raw_leads(people) == named
    await _replay(people)


async def _ingest(
    people: People, chance: random.Random, worker: int, named: dict[str, str]
) -> None:
    """Batches of ids of its own, now and then an id again."""
    for batch in range(40):
        leads = chance.choices(LEADS, k=8)
        events = tuple((f"w{worker}-{batch}-{n}", lead) for n, lead in enumerate(leads))
        await again(partial(people.ingest, *events))
        named |= events


async def _merge(people: People, chance: random.Random) -> None:
    for _ in range(25):
        target, *sources = chance.choices(LEADS, k=chance.randint(2, 4))
        command = people.command(target, *sources)
        if chance.random() < 0.3:
            command = replace(command, kind="unmerge")
        countable = chance.choice((-1, merges.COUNTABLE))
        for _ in range(chance.choice((1, 1, 2))):
            await again(partial(merges.apply, people.postgres, command, countable))


async def _move(people: People) -> None:
    await merges.mover(people.postgres, lambda _: None, 0.001, 7)


async def _read(people: People) -> None:
    """At any moment the readers' view of a lead is all rows whose raw lead is of its class."""
    for lead in LEADS * 4:
        wrong = await people.pool.fetch(
            """SELECT e.id FROM (SELECT coalesce((
                SELECT to_lead FROM lead_redirects WHERE from_lead = $2), $2) AS root) r
            CROSS JOIN LATERAL (SELECT lead_class($1, r.root) AS leads) c
            CROSS JOIN LATERAL (SELECT lead_places($1, c.leads) AS places) p
            JOIN events e ON coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)
            WHERE e.lead_id <> ALL (p.places)""",
            "acme",
            lead,
        )
        assert wrong == []


async def _raw_leads(people: People) -> dict[str, str]:
    return {row_id: original or lead for row_id, (lead, original) in (await people.rows()).items()}


async def _replay(people: People) -> None:
    """The log, decided again in its order by the pure forest, gives the same changes, roots, epochs and counts."""
    forest = Forest()
    log = await people.pool.fetch("SELECT * FROM merges ORDER BY id")
    assert any(m["kind"] == "unmerge" and m["merged_lead_ids"] for m in log)
    for m in log:
        sources = tuple(m["source_lead_ids"])
        fields = (m["message_id"], m["org_unit"], m["target_lead_id"], sources, None, m["kind"], 0)
        change = merge.decide(forest, MergeCommand(NO_RECORD, *fields))
        assert (change.survivor, change.named) == (
            m["survivor_lead_id"],
            tuple(m["merged_lead_ids"]),
        )
        classes = [merge.one_with(forest, root) for root in change.joined]
        leads = sorted(frozenset().union(*classes, *change.parted.values()))
        assert m["events_moved"] == await _rows_before(people, leads, m["batch"])
        forest = merge.apply(forest, change, m["id"])
    survivors = [merge.root(forest, lead) for lead in LEADS]
    expected = [(root, forest.epochs.get(root, 0)) for root in survivors]
    assert await people.roots(LEADS) == expected


async def _rows_before(people: People, leads: list[str], batch: int) -> int:
    found: int = await people.pool.fetchval(
        """SELECT count(*) FROM events
        WHERE coalesce(original_lead_id, lead_id) = ANY ($1) AND batch < $2""",
        leads,
        batch,
    )
    return found
