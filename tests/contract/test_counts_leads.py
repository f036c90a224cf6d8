"""Leads get counts of their own one by one, and nobody waits for all of them."""

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from processor.io.counts import folder
from processor.io.postgres import Postgres
from tests.contract.count_world import LEADS, ingest, some_events
from tests.contract.merge_world import ORG, People, people
from tests.harness_waiting import until

__all__ = ["people"]
pytestmark = [pytest.mark.contract]
# Every transaction that has not ended knows that they are to be counted.
WAITING = """INSERT INTO counted_leads (org_unit, lead_id, barrier)
    SELECT $1, unnest($2::text[]), '3'"""
READY = "SELECT count(*) FROM counted_leads WHERE ready"


class Told(Postgres):
    """Says which statements with one value it was asked for."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.calls: list[str] = []

    async def fetchval(self, name: str, *args: object) -> Any:
        """As it is, and remembered."""
        self.calls.append(name)
        return await super().fetchval(name, *args)


async def test_a_call_counts_one_lead(people: People) -> None:
    """However many wait, it takes no longer than for one of them, and what it has counted stays; the others follow."""
    await people.pool.execute(WAITING, ORG, LEADS[:3])
    for ready in (1, 2, 3):
        assert await people.pool.fetchval("SELECT count_leads()") == 1
        assert await people.pool.fetchval(READY) == ready
    assert await people.pool.fetchval("SELECT count_leads()") == 0


async def test_a_worker_folds_between_one_lead_and_the_next(people: People) -> None:
    """Nobody folds while a lead is counted: notes do not wait for all of them."""
    await ingest(people, some_events(people, random.Random(1), [f"e{n}" for n in range(50)]))
    await people.pool.execute(WAITING, ORG, LEADS[:3])
    postgres = Told(people.pool)
    task = asyncio.create_task(folder(postgres, 60))
    await until(lambda: postgres.calls.count("count_leads") == 4)
    task.cancel()
    told = [call for call in postgres.calls if call != "fold_counts"]
    assert told == ["last_count_change", "count_leads"] * 4
    assert await people.pool.fetchval(READY) == 3
