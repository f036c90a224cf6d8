"""Merges as those who asked for them see them: requests, progress, and what a merge would do.

Every method raises `Retryable` while Postgres is away.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from processor.io.merges import forest_of
from processor.io.postgres import QUERIES, Postgres
from processor.pure.merge import Forest

MOST_COUNTED = 1_000_000
"""Rows that one answer counts: some tenths of a second."""


class Wanted(Struct, frozen=True):
    """A merge or unmerge as it was asked for."""

    org_unit: str
    kind: Literal["merge", "unmerge"]
    target: str
    sources: Sequence[str]
    """Without repeats."""
    requested_by: str
    requested_at: int
    """Milliseconds."""


class Standing(Struct, frozen=True):
    """Where leads stand, and what a merge would move, in one snapshot."""

    roots: Mapping[str, str]
    """Of each lead asked about."""
    events: Mapping[str, int]
    """Of each root but the target's: the rows of its class."""
    exact: bool
    """False: there are more than `MOST_COUNTED`, and the numbers are at least these."""


async def requested(postgres: Postgres, wanted: Wanted, message_id: str) -> None:
    """Remembers what the topic has now, until and after the worker has recorded it."""
    async with postgres.of_org_unit(wanted.org_unit) as connection:
        await connection.execute(
            QUERIES["request_merge"],
            wanted.org_unit,
            message_id,
            wanted.kind,
            wanted.target,
            list(wanted.sources),
            wanted.requested_by,
            wanted.requested_at,
        )


async def progress(postgres: Postgres, org_unit: str, message_id: str) -> Any:
    """The row of `merge_progress`; None for a merge the org unit does not have."""
    async with postgres.of_org_unit(org_unit) as connection:
        await connection.execute(QUERIES["by_index"])
        return await connection.fetchrow(
            QUERIES["merge_progress"], org_unit, message_id, MOST_COUNTED
        )


async def standing(
    postgres: Postgres,
    org_unit: str,
    target: str,
    sources: Sequence[str],
    most: int = MOST_COUNTED,
) -> Standing:
    """Where the leads of a merge stand; `most` bounds the rows that are counted."""
    async with postgres.of_org_unit(org_unit) as connection:
        await connection.execute(QUERIES["by_index"])
        rows = await connection.fetch(
            QUERIES["merge_preview"], org_unit, target, list(sources), most + 1
        )
    roots = {row["lead"]: row["root"] for row in rows}
    events = {row["root"]: row["events"] for row in rows if row["root"] != roots[target]}
    return Standing(roots, events, exact=sum(events.values()) <= most)


async def forest(postgres: Postgres, org_unit: str, target: str, sources: Sequence[str]) -> Forest:
    """All merges that stand in the classes of these leads."""
    async with postgres.of_org_unit(org_unit) as connection:
        rows = await connection.fetch(QUERIES["merge_edges"], org_unit, [target, *sources])
    return forest_of(rows)
