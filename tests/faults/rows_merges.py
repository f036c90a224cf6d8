"""Merges that come in any order, while their leads' events come in and workers die between a merge and the move of its rows."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests import harness
from tests.faults.checker_leads import MERGE_EVENTS, take_effect
from tests.faults.evidence import committed
from tests.faults.field import PARTITIONS, Field
from tests.faults.history import LEADS, ORG_UNITS, Load, Merge
from tests.faults.matrix import Bitten, row
from tests.faults.points import MERGING
from tests.faults.steps import goes_on
from tests.oracle_leads import Forest

CHUNK = 50
"""Rows: several chunks to a move of a lead that others were merged into."""
TINY_CHUNK = 5
"""Rows: moves take longer than the next merge."""
FEW_LEADS = 8
CHAINS = 4
MOVES = "SELECT count(*) FROM lead_moves WHERE org_unit = $1 AND from_lead = $2"
TOLD = "SELECT json_object_agg(source_offset, metadata -> 'source_lead_ids')::text FROM events WHERE event_type = ANY ($1)"


@row("merges, chains, cycles, repeats and unmerges while workers die between a merge and its move")
async def raced(field: Field) -> Bitten:
    """All leads are where the merges say, windows count the united past, and each merge that did something is told of once."""
    field.environment["MOVE_ROWS"] = str(CHUNK)
    await field.start(3)
    async with field.sending(rate=500):
        await goes_on(field)
        async with _merging(field):
            for point in (*MERGING, "after_record", *MERGING):
                dead = await field.strike(point, "SIGKILL")
                assert await dead.ended() == -signal.SIGKILL
                field.launch()
        await _recorded(field)
        # Windows that nobody has asked for since their leads were merged say nothing of merges.
        await goes_on(field)
    field.heal()
    await field.settle()
    return Bitten(await _told_once(field), "merges that did something")


@row("a second merge before the rows of the first have moved")
async def overtaken(field: Field) -> Bitten:
    """Chains of merges quicker than their moves, which go on to wherever the root is by then."""
    field.environment["MOVE_ROWS"] = str(TINY_CHUNK)
    field.load = Load(field.seed, PARTITIONS, FEW_LEADS)
    await field.start(2)
    overtook = 0
    async with field.sending():
        await harness.until(lambda: len(field.history.sent) > field.events // 2, 60)
        for number in range(CHAINS):
            org_unit, lowest = ORG_UNITS[number % len(ORG_UNITS)], number // len(ORG_UNITS) * 3
            first, second, third = (f"ld-{lowest + n}" for n in range(3))
            await field.merge(org_unit, second, first)
            await field.merge(org_unit, third, second)
            await _recorded(field)
            overtook += await field.ask(MOVES, org_unit, first)
    field.heal()
    await field.settle()
    await _told_once(field)
    return Bitten(overtook, "moves that were overtaken")


@asynccontextmanager
async def _merging(field: Field) -> AsyncIterator[None]:
    """One merge after the other, of any kind, beside the block."""
    over = asyncio.Event()

    async def merge() -> None:
        asked: list[Merge] = []
        while not over.is_set():
            asked.append(_next(field, asked))
            org_unit, target, sources, kind = asked[-1]
            await field.merge(org_unit, target, *sources, kind=kind)

    async with asyncio.TaskGroup() as beside:
        beside.create_task(merge())
        try:
            yield
        finally:
            over.set()


def _next(field: Field, asked: list[Merge]) -> Merge:
    """A new one, of which some are cycles or of a lead with itself, an earlier one again, or its end."""
    r = field.random
    chance = r.random()
    if asked and chance < 0.1:
        return r.choice(asked)
    if asked and chance < 0.5:
        return r.choice(asked[-30:])._replace(kind="unmerge")
    leads = [f"ld-{r.randrange(LEADS)}" for _ in range(r.randrange(2, 5))]
    return Merge(r.choice(ORG_UNITS), leads[0], tuple(leads[1:]), "merge")


async def _recorded(field: Field) -> None:
    """Returns when every merge so far is."""
    lane = field.world.merges, 0
    end = field.history.ends()[lane]

    async def all_of_them() -> bool:
        return (await committed(field.world, [lane]))[lane] >= end

    await harness.until(all_of_them, 60)


async def _told_once(field: Field) -> int:
    """How many merges did something; AssertionError where their events are not exactly those."""
    forest, expected = Forest(), {}
    for sent in sorted(field.history.sent, key=lambda sent: sent.offset):
        if isinstance(sent.asks, Merge):
            done = take_effect(forest, sent.asks)
            if done:
                expected[str(sent.offset)] = done
    told = json.loads(await field.ask(TOLD, MERGE_EVENTS) or "{}")
    wrong = {at: (told.get(at), said) for at, said in expected.items() if told.get(at) != said}
    assert not wrong, f"told, and expected, by offset: {wrong}"
    assert told.keys() == expected.keys(), "a merge that did nothing is told of"
    return len(expected)
