"""The past of leads that were merged and parted, on Postgres: who was one with whom when an event came decides whether it exceeds."""

import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from processor.io import merges
from processor.io.past import Past, Window
from processor.io.postgres import QUERIES, Postgres
from processor.pure.past import Exceeding
from processor.pure.types import Case, Event, Facts, Root, Ruling, VelocityFilter
from tests.contract.merge_world import ORG, People, people
from tests.oracle_leads import Forest
from tests.unit.merge_records import NoRecord

__all__ = ["people"]
pytestmark = pytest.mark.contract
HISTORIES = 40
STEPS = 25
SPAN = 60
"""Times of events begin at 0 and go so far, ms."""
PLAN = """
INSERT INTO merges (org_unit, message_id, kind, target_lead_id, source_lead_ids, survivor_lead_id, merged_lead_ids, batch, committed_at)
SELECT 'acme', 'm' || n, 'merge', 'x', '{y}', 'x', '{y}', n, now() FROM generate_series(1, 10000) n;
INSERT INTO merge_edges (org_unit, source_lead, target_lead, merge_id, named)
SELECT org_unit, 'source-' || id, 'target-' || id, id, '{}' FROM merges;
"""


@dataclass
class Leads:
    """Some leads, what happened to them, and the events of theirs that exceed where the filter was there all the time."""

    people: People
    names: Sequence[str]
    velocity: VelocityFilter
    chance: random.Random
    forest: Forest = field(default_factory=Forest)
    events: list[tuple[int, str, str]] = field(default_factory=list)
    """Time, id, lead."""
    bursts: dict[str, set[str]] = field(default_factory=dict)

    async def step(self) -> None:
        """Something happens."""
        await self.chance.choice(3 * [self._event] + [self._merge, self._part, self._move])()

    async def link(self) -> None:
        """Leads are merged or parted."""
        await self.chance.choice([self._merge, self._part])()

    async def _event(self) -> None:
        at, lead = self.chance.randrange(SPAN), self.chance.choice(self.names)
        event_id = f"{lead}-{len(self.events)}"
        ((root, epoch),) = await self.people.roots([lead])
        record = NoRecord("raw", offset=len(self.events))
        event = Event(record, ORG, event_id, lead, "Page View", {}, b"{}", at)
        case = Case(event, Root(root, epoch), None, True, ())
        assert await self.people.recorded([Ruling(case, None, None, Facts(True, 1, {}))])
        self._judge(at, event_id, lead)
        self.events.append((at, event_id, lead))

    def _judge(self, at: int, event_id: str, lead: str) -> None:
        """Among the events of the leads that are one with its own now."""
        width, leads = self.velocity.window_ms, self.forest.one_with(ORG, lead)
        past = [event for event in self.events if event[2] in leads]
        if 1 + sum(at - width < other <= at for other, *_ in past) > self.velocity.threshold:
            near = [i for other, i, _ in past if abs(other - at) < width]
            self.bursts[event_id] = {b for i in near for b in self.bursts.get(i, ())} or {event_id}

    async def _merge(self) -> None:
        target, *sources = self.chance.sample(self.names, 3)
        root = self.forest.root(ORG, target)
        outside = [lead for lead in sources if self.forest.root(ORG, lead) != root]
        self.forest.join(ORG, root, outside)
        assert (await self.people.merge(target, *sources)).named == tuple(outside)

    async def _part(self) -> None:
        target, source = self.chance.sample(self.names, 2)
        parted = self.forest.part(ORG, target, (source,))
        assert (await self.people.unmerge(target, source)).named == tuple(parted)

    async def _move(self) -> None:
        await merges.move_step(self.people.postgres, 2)

    async def built(self, lead: str) -> tuple[int, Sequence[Exceeding]]:
        """The floor of a lead's window and what exceeds above it, as Postgres tells."""
        ((root, epoch),) = await self.people.roots([lead])
        lateness = self.chance.choice((0, 10, SPAN))
        window = Window(ORG, root, epoch, self.velocity)
        (held,) = await Past(self.people.postgres).windows([(window, SPAN)], lateness)
        return held.floor, sorted(held.exceeding)

    def theirs(self, lead: str) -> list[int]:
        """When the events were that exceeded, of leads that are one with it now."""
        leads = self.forest.one_with(ORG, lead)
        return [at for at, event_id, own in self.events if own in leads and event_id in self.bursts]


async def test_what_exceeds_in_the_past_is_what_exceeded_among_the_leads_that_were_one_then(
    people: People,
) -> None:
    """For whatever merges, unmerges and moves came between the events, after them, and after the filter."""
    for number in range(HISTORIES):
        chance = random.Random(number)
        threshold, width = chance.choice((0, 1, 1, 2, 3)), chance.choice((2, 5, 10))
        velocity = VelocityFilter("vf", "v", 1, "Page View", threshold, width, True, 2, SPAN)
        leads = Leads(people, [f"{number}-{name}" for name in "ABCDE"], velocity, chance)
        for _ in range(STEPS):
            await leads.step()
        for _ in range(chance.randrange(3)):
            await leads.link()
        for lead in leads.names:
            floor, held = await leads.built(lead)
            assert all(burst in leads.bursts[event_id] for _, event_id, burst in held)
            times = leads.theirs(lead)
            for at in range(floor + width, SPAN + width):
                near = any(abs(other - at) < width for other in times)
                assert near == any(abs(other - at) < width for other, *_ in held), (number, lead)


class Counted(Postgres):
    """Counts the pasts that are read."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.read: list[Sequence[str]] = []

    def stream_by_keys(self, name: str, *args: Any) -> AsyncIterator[list[Any]]:
        self.read.append(args[1])
        return super().stream_by_keys(name, *args)


async def test_leads_that_were_ever_one_have_one_past_which_is_folded_once_for_all_their_windows(
    people: People,
) -> None:
    """In one call, of windows and of late events alike; what exceeds in each is what it is by itself."""
    postgres = Counted(people.postgres._pool)
    for number in range(HISTORIES // 4):
        velocity = VelocityFilter("vf", "v", 1, "Page View", 1, 5, True, 2, SPAN)
        names = [f"{number}-{name}" for name in "ABCDE"]
        leads = Leads(people, names, velocity, random.Random(number))
        for _ in range(STEPS):
            await leads.step()
        await people.merge(names[0], *names[1:])
        await people.unmerge(names[0], *names[1 + number % 4 :])
        roots = dict(await people.roots(names))
        windows = [Window(ORG, root, epoch, velocity) for root, epoch in roots.items()]
        wanted = [(window, SPAN - n) for n, window in enumerate(windows)]
        alone = [(await Past(postgres).windows([one], 10))[0] for one in wanted]
        postgres.read.clear()
        together = await Past(postgres).windows(wanted, 10)
        assert [set(held.exceeding) for held in together] == [set(h.exceeding) for h in alone]
        assert [sorted(read) for read in postgres.read] == [names]
        events = [_late(f"late-{n}", window.lead_id, n) for n, window in enumerate(windows)]
        touches = list(zip(windows, events, strict=True))
        postgres.read.clear()
        seen, _ = await Past(postgres).around(touches, events)
        assert [sorted(read) for read in postgres.read] == [names]
        singly = [(await Past(postgres).around([touch], events))[0][0] for touch in touches]
        assert seen == singly


def _late(event_id: str, lead: str, at: int) -> Event:
    return Event(NoRecord("raw", offset=0), ORG, event_id, lead, "Page View", {}, b"{}", at)


async def test_who_was_ever_one_with_a_lead_is_found_by_index(people: People) -> None:
    """Of ten thousand others nobody is looked at, by a plan that was made before there were any."""
    async with people.pool.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES["by_keys"])
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE asked (text, text) AS {QUERIES['past_links']}")
        await connection.execute(PLAN)
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS) EXECUTE asked('acme', 'target-7')"
        )
    text = "\n".join(row[0] for row in plan)
    looked_at = re.findall(r"actual time=\S+ rows=(\d+)|Rows Removed by .*: (\d+)", text)
    assert looked_at
    assert max(int(rows or removed) for rows, removed in looked_at) < 10, text
