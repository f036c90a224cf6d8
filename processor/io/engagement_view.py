"""Leads as the engagement service has counted them, for the API.  Every method raises `Retryable` while Postgres is away."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from processor.io.postgres import QUERIES, Postgres
from processor.pure.score import Score, added
from processor.pure.sessions import Session

RECENT = 10
_LARGEST_OFFSET = 2**62


class Engaged(Struct, frozen=True):
    """A lead that has organic events."""

    lead_id: str
    score: Score
    sessions: int
    first: int
    last: int
    recent: Sequence[Session] = ()
    """Its newest sessions, newest first; only where one lead is asked for."""


async def by_score(
    postgres: Postgres, org_unit: str, page: int, limit: int
) -> tuple[Sequence[Engaged], int]:
    """A page of an org unit's leads as they were counted, highest score first, and how many there are; pages count from 1."""
    offset = min((page - 1) * limit, _LARGEST_OFFSET)
    async with postgres.of_org_unit(org_unit) as connection:
        await connection.execute(QUERIES["by_keys"])
        total, *rows = await connection.fetch(QUERIES["ranked_leads"], org_unit, offset, limit)
    return [_ranked(row) for row in rows], total["leads"]


async def of_lead(postgres: Postgres, org_unit: str, lead_id: str) -> Engaged | None:
    """A lead, a merged-away one meaning its survivor; None where it has no organic events."""
    async with postgres.of_org_unit(org_unit) as connection:
        await connection.execute(QUERIES["by_keys"])
        row = await connection.fetchrow(QUERIES["engaged_lead"], org_unit, lead_id, RECENT)
    if row is None:
        return None
    return Engaged(
        row["lead_id"],
        added(Score(*parts) for parts in zip(row["weeks"], row["totals"], strict=True)),
        row["sessions"],
        row["first_at"],
        row["last_at"],
        [Session(*parts) for parts in row["recent"]],
    )


def _ranked(row: Any) -> Engaged:
    score = Score(row["week"], row["total"])
    return Engaged(row["lead_id"], score, row["sessions"], row["first_at"], row["last_at"])
