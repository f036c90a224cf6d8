"""Filters one by one, as the API keeps them: who changed which last, and a change that is decided on what is there.

Every method raises `Retryable` while Postgres is away.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from processor.io import filters
from processor.io.filters import Definition, Stored, Written
from processor.io.postgres import QUERIES, Connection, Postgres, page

Kind: TypeAlias = filters.Kind


class Kept(Struct, frozen=True):
    """A filter that is not deleted, and its last change."""

    kind: Kind
    definition: Mapping[str, Any]
    """Its fields, conditions as the JSON that is stored: an org unit may have megabytes of them."""
    version: int
    changed_at: int
    changed_by: str


class Version(Struct, frozen=True):
    """What a change made of a filter; no definition: it was deleted."""

    version: int
    definition: orjson.Fragment | None
    changed_at: int
    changed_by: str


class Editing:
    """One filter id inside the transaction of a change: nobody else changes any filter until it ends."""

    def __init__(self, connection: Connection, org_unit: str, filter_id: str) -> None:
        self._connection = connection
        self._org_unit = org_unit
        self._id = filter_id
        self._stored: Stored | None = None
        self.kept: Kept | None = None
        """The filter of that id, of whatever kind."""

    async def look(self) -> None:
        """Reads what is there."""
        row: Any = await self._connection.fetchrow(QUERIES["filter_ever"], self._org_unit, self._id)
        self._stored = filters.from_row(row) if row else None
        self.kept = _kept(row) if row and not row["deleted"] else None

    async def number(self, kind: Kind) -> int:
        """How many filters of a kind the org unit has."""
        found: int = await self._connection.fetchval(QUERIES["count_filters"], self._org_unit, kind)
        return found

    async def change(self, changes: Definition, fields: Collection[str], by: str) -> None:
        """The filter, which must be there, has these fields of a definition; the others stay as they are kept."""
        if self._stored is None:
            raise ValueError("a filter that is not there cannot be changed")
        kept, new = self._stored.written, filters.written(changes)
        changed = {name: new.fields[name] for name in fields}
        weight = new.weight if "conditions" in fields else kept.weight
        await self._write(Written(kept.kind, {**kept.fields, **changed}, weight), by)

    async def write(self, definition: Definition | None, by: str) -> None:
        """The filter is this from the commit on, None: deleted; where it is so already, nothing changes."""
        await self._write(filters.written(definition) if definition else None, by)

    async def _write(self, written: Written | None, by: str) -> None:
        key = self._org_unit, self._id
        before = {key: self._stored} if self._stored else {}
        await filters.change(self._connection, before, {key: written}, by)
        await self.look()


@asynccontextmanager
async def editing(postgres: Postgres, org_unit: str, filter_id: str) -> AsyncIterator[Editing]:
    """A change of one filter; it is in force when this ends without an exception."""
    async with postgres.of_org_unit(org_unit) as connection:
        await connection.execute(QUERIES["lock_rules"])
        found = Editing(connection, org_unit, filter_id)
        await found.look()
        yield found


async def every(postgres: Postgres, org_unit: str, kind: Kind) -> Sequence[Kept]:
    """The filters of a kind, enabled first, then most recently changed."""
    async with postgres.of_org_unit(org_unit) as connection:
        rows = await connection.fetch(QUERIES["filters_of_kind"], org_unit, kind)
    return [_kept(row) for row in rows]


async def one(postgres: Postgres, org_unit: str, filter_id: str) -> Kept | None:
    """The filter of an id, of whatever kind."""
    async with postgres.of_org_unit(org_unit) as connection:
        row: Any = await connection.fetchrow(QUERIES["filter_ever"], org_unit, filter_id)
    return _kept(row) if row and not row["deleted"] else None


async def versions(
    postgres: Postgres, of: tuple[str, Kind, str], offset: int, limit: int
) -> Sequence[Version]:
    """Changes of a filter (org unit, kind, id), newest first, those before a deletion too; raises `TooMuch`."""
    async with postgres.of_org_unit(of[0]) as connection:
        rows = await page(connection, "filter_versions", _size, *of, offset, limit)
    return [
        Version(
            row["version"],
            orjson.Fragment(row["definition"]) if row["definition"] else None,
            row["changed_at"],
            row["changed_by"],
        )
        for row in rows
    ]


def _size(row: Any) -> int:
    found: int | None = row["size"]
    return found or 0


def _kept(row: Any) -> Kept:
    found = filters.written_in(row, orjson.Fragment)
    return Kept(found.kind, found.fields, row["version"], row["changed_at"], row["changed_by"])
