"""The engagement store on a fresh database: records as they are delivered, merges, and everything that is kept, recounted."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest

from processor.io import engagement_view
from processor.io.engagement_store import Applied, Store
from processor.io.engagement_view import Engaged as EngagedLead
from processor.io.postgres import Postgres
from processor.pure.engagement import Rules, Told
from processor.pure.enriched import Found, Organic, Relinked
from processor.pure.places import Delivered
from processor.pure.score import score_at
from processor.pure.surges import SurgeRule
from tests.contract.merge_world import ORG, People
from tests.oracle_engagement import recount, untold

TOPIC = "enriched"
TOPIC_ID = b"first"
RULE = SurgeRule(frozenset({"Page View", "Form Submit"}), 3, 60_000)
RULES = Rules({"Page View": 1.0, "Email Open": 0.5, "Form Submit": 10.0}, RULE)
START = 1_767_225_600_000


class Engaged:
    """A store, and what was delivered to it."""

    def __init__(self, postgres: Postgres, pool: asyncpg.Pool) -> None:
        self.store = Store(postgres, TOPIC, RULES)
        self.people = People(postgres, pool)
        self.pool = pool
        self.told: list[dict[str, Any]] = []
        self._postgres = postgres
        self._next: defaultdict[int, int] = defaultdict(int)
        self._events: dict[str, Organic] = {}

    def records(self, partition: int, *found: Found) -> list[Delivered]:
        """As the topic has them from now on; a transaction's marker stands before them."""
        records = []
        for one in found:
            offset = self._next[partition] + (1 if one is found[0] else 0)
            records.append(Delivered(partition, offset, self._next[partition] - 1, one))
            self._next[partition] = offset + 1
        self._events |= {one.id: one for one in found if isinstance(one, Organic)}
        return records

    async def apply(self, partition: int, *found: Found) -> Applied:
        """New records, in one batch."""
        return await self.store.apply(self.records(partition, *found))

    async def relinked(self, lead: str, *sources: str) -> None:
        """The event of the last merge, on the partition of nobody's events."""
        await self.apply(9, Relinked(ORG, self.people.message, [lead, *sources], START))

    async def publish(self) -> list[dict[str, Any]]:
        """What is told now."""
        new: list[dict[str, Any]] = []

        async def send(told: Sequence[Told]) -> None:
            new.extend(msgspec.json.decode(one.value) for one in told)

        while await self.store.publish(send):
            pass
        self.told += new
        return new

    async def state(self) -> Mapping[str, list[tuple[Any, ...]]]:
        """Every row that is kept of leads."""
        tables = ("engaged_events", "engaged_leads", "lead_sessions", "lead_surges", "lead_scores")
        return {
            table: [
                tuple(row)
                for row in await self.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
            ]
            for table in tables
        }

    async def listed(self) -> Sequence[EngagedLead]:
        """Every lead of the list."""
        found, total = await engagement_view.by_score(self._postgres, ORG, 1, 1_000)
        assert total == len(found)
        return found

    async def assert_recounted(self, *, surges: bool = True) -> None:
        """What the API shows is what a recount finds, lead by lead and in order; `surges`: of every one there is one told."""
        roots = {
            row["from_lead"]: row["to_lead"]
            for row in await self.pool.fetch("SELECT * FROM lead_redirects")
        }
        surge = RULE.types, RULE.threshold, RULE.window_ms
        wanted = recount(rows(self._events.values()), roots, RULES.weights, surge)
        listed = await self.listed()
        assert len(listed) == len(wanted)
        assert {lead.lead_id for lead in listed} == set(wanted)
        at = START + 10**9
        scores = [wanted[lead.lead_id].score(at) for lead in listed]
        assert scores == sorted(scores, reverse=True)
        told = await self._surges(roots)
        for lead in listed:
            own = wanted[lead.lead_id]
            found = await engagement_view.of_lead(self._postgres, ORG, lead.lead_id)
            assert found is not None
            assert msgspec.structs.replace(found, recent=(), score=lead.score) == lead
            assert score_at(lead.score, at) == pytest.approx(own.score(at), rel=1e-9, abs=1e-6)
            assert score_at(found.score, at) == pytest.approx(own.score(at), rel=1e-9, abs=1e-6)
            assert (lead.first, lead.last) == (own.first, own.last)
            assert lead.sessions == len(own.sessions)
            recent = [(one.start, one.end, one.events) for one in found.recent]
            assert recent == own.sessions[::-1][: engagement_view.RECENT]
            if surges:
                assert set(told[lead.lead_id]) <= own.surging
                assert untold(own.surging, told[lead.lead_id], RULE.window_ms) == []

    async def _surges(self, roots: Mapping[str, str]) -> defaultdict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row in await self.pool.fetch("SELECT lead_id, event_ms(at) AS at FROM lead_surges"):
            found[roots.get(row["lead_id"], row["lead_id"])].append(row["at"])
        return found


def rows(events: Iterable[Organic]) -> list[dict[str, Any]]:
    """As a recount takes them."""
    return [
        {"id": e.id, "lead": e.lead_id, "type": e.event_type, "at": e.at, "reason": None}
        for e in events
    ]


@asynccontextmanager
async def engaged(database: str) -> AsyncIterator[Engaged]:
    """On a migrated database."""
    postgres = await Postgres.connect(database, size=8)
    try:
        async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool:
            world = Engaged(postgres, pool)
            await world.store.opened(TOPIC_ID, dict.fromkeys(range(10), 0))
            yield world
    finally:
        await postgres.close()
