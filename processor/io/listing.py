"""Listings of events: any page of any of them without passing over what comes before it, and totals that are exact.

Each call sees one snapshot, so page and total belong together.  Every method raises `Retryable` while Postgres is away.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from processor.io.postgres import QUERIES, Postgres

REASONS = ("none", "inorganic", "inorganic_grouped", "metadata_filter")
"""As the API names them; their places are the bits of a set of reasons."""
EVERY_REASON = 15
LARGE = 4_096
"""A lead with more events than this gets counts of its own; until a worker has made them, its events are counted one by one."""
_LARGEST_OFFSET = 2**62


class Chosen(Struct, frozen=True):
    """Which events of an org unit are listed."""

    org_unit: str
    event_type: str = ""
    """Empty: every type."""
    reasons: int = EVERY_REASON
    """A bit for each of `REASONS`."""
    since: int | None = None
    """Occurred then or later, ms."""
    until: int | None = None
    """Occurred before, ms."""


class Page(Struct, frozen=True):
    """Rows have id, lead_id, event_type, metadata, suppression_reason, original_lead_id, occurred_at."""

    rows: Sequence[Any]
    total: int


async def events(postgres: Postgres, chosen: Chosen, page: int, limit: int) -> Page:
    """Events of an org unit, newest first; pages count from 1."""
    return await _page(postgres, chosen, "", page, limit) or Page([], 0)


async def of_lead(
    postgres: Postgres, chosen: Chosen, lead_id: str, page: int, limit: int
) -> Page | None:
    """Events of a lead, a merged-away one meaning its survivor; None where it has none at all, chosen or not."""
    return await _page(postgres, chosen, lead_id, page, limit)


async def event_types(postgres: Postgres, org_unit: str) -> Sequence[Any]:
    """Rows of event_type, count."""
    async with postgres.of_org_unit(org_unit) as connection:
        rows: Sequence[Any] = await connection.fetch(QUERIES["event_types"], org_unit)
    return rows


async def suppression(
    postgres: Postgres, org_unit: str, first_hour: int, after_hour: int
) -> Sequence[Any]:
    """Rows of hour (since 1970), reason (a place in `REASONS`), filter_id, event_type, count; newest hour first."""
    async with postgres.of_org_unit(org_unit) as connection:
        rows: Sequence[Any] = await connection.fetch(
            QUERIES["suppression_summary"], org_unit, first_hour, after_hour
        )
    return rows


async def delete(postgres: Postgres, org_unit: str, event_ids: Sequence[str], by: str) -> int:
    """How many became tombstones: those that exist, are the org unit's and were none yet."""
    async with postgres.of_org_unit(org_unit) as connection:
        deleted: int = await connection.fetchval(
            QUERIES["delete_events"], org_unit, list(event_ids), by
        )
    return deleted


async def _page(
    postgres: Postgres, chosen: Chosen, lead_id: str, page: int, limit: int
) -> Page | None:
    rows = await postgres.fetch(
        "list_events",
        chosen.org_unit,
        lead_id,
        chosen.event_type,
        chosen.reasons,
        chosen.since,
        chosen.until,
        min((page - 1) * limit, _LARGEST_OFFSET),
        limit,
        LARGE,
    )
    return Page([row for row in rows if row["n"]], rows[0]["total"]) if rows else None
