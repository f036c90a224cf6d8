"""Ingest, merges, unmerges and moves all at once, at random: afterwards the tables are what the log of merges says."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from processor.failures import Retryable
from processor.io import merges
from processor.pure import merge
from processor.pure.merge import Forest
from processor.pure.types import MergeCommand
from tests.contract.merge_world import World, server, world
from tests.unit.merge_records import NO_RECORD

__all__ = ["server", "world"]
LEADS = [f"L{n}" for n in range(12)]


async def test_ingest_merges_and_moves_converge(world: World) -> None:
    """V6 with unmerges: no row lost or stranded, every decision that of the forest then, every count exact."""
    chance = random.Random(7)
    named: dict[str, str] = {}
    async with asyncio.TaskGroup() as tasks:
        movers = [tasks.create_task(_move(world)) for _ in range(2)]
        async with asyncio.TaskGroup() as work:
            for worker in range(4):
                work.create_task(_ingest(world, chance, worker, named))
            for _ in range(2):
                work.create_task(_merge(world, chance))
            work.create_task(_read(world))
        for mover in movers:
            mover.cancel()
    await world.drain(limit=50)
    assert await world.bad() == []
    assert await _raw_leads(world) == named
    await _replay(world)


async def _ingest(world: World, chance: random.Random, worker: int, named: dict[str, str]) -> None:
    """Batches of ids of its own, now and then an id again."""
    for batch in range(40):
        leads = chance.choices(LEADS, k=8)
        events = tuple((f"w{worker}-{batch}-{n}", lead) for n, lead in enumerate(leads))
        await _again(partial(world.ingest, *events))
        named |= events


async def _merge(world: World, chance: random.Random) -> None:
    for _ in range(25):
        target, *sources = chance.choices(LEADS, k=chance.randint(2, 4))
        command = world.command(target, *sources)
        if chance.random() < 0.3:
            command = replace(command, kind="unmerge")
        countable = chance.choice((-1, merges.COUNTABLE))
        for _ in range(chance.choice((1, 1, 2))):
            await _again(partial(merges.apply, world.postgres, command, countable))


async def _move(world: World) -> None:
    await merges.mover(world.postgres, lambda _: None, 0.001, 7)


async def _read(world: World) -> None:
    """At any moment the readers' view of a lead is all rows whose raw lead is of its class."""
    for lead in LEADS * 4:
        wrong = await world.pool.fetch(
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


async def _again(call: Callable[[], Awaitable[object]]) -> None:
    """As a lane does: the same call until it succeeds."""
    async with asyncio.timeout(30):
        while True:
            try:
                await call()
            except Retryable:
                await asyncio.sleep(0.01)
            else:
                return


async def _raw_leads(world: World) -> dict[str, str]:
    return {row_id: original or lead for row_id, (lead, original) in (await world.rows()).items()}


async def _replay(world: World) -> None:
    """The log, decided again in its order by the pure forest, gives the same changes, roots, epochs and counts."""
    forest = Forest()
    log = await world.pool.fetch("SELECT * FROM merges ORDER BY id")
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
        assert m["events_moved"] == await _rows_before(world, leads, m["batch"])
        forest = merge.apply(forest, change, m["id"])
    survivors = [merge.root(forest, lead) for lead in LEADS]
    expected = [(root, forest.epochs.get(root, 0)) for root in survivors]
    assert await world.roots(LEADS) == expected


async def _rows_before(world: World, leads: list[str], batch: int) -> int:
    found: int = await world.pool.fetchval(
        """SELECT count(*) FROM events
        WHERE coalesce(original_lead_id, lead_id) = ANY ($1) AND batch < $2""",
        leads,
        batch,
    )
    return found
