"""What the tests of filters share: a database, filters in short, and what is kept of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from processor.io import filters
from processor.io.postgres import Postgres
from processor.io.rulebook import Rulebook
from processor.pure.types import Rules
from schemas import FilterFile

__all__ = ["Book", "book", "file", "metadata", "velocity"]


def velocity(filter_id: str = "vf", **fields: Any) -> dict[str, Any]:
    """A velocity filter, as YAML says it."""
    given = {"name": "Bursts", "event_type": "page_view", "threshold": 3, "window_ms": 1000}
    return {"id": filter_id, **given, **fields}


def metadata(filter_id: str = "mf", *values: Any, **fields: Any) -> dict[str, Any]:
    """A metadata filter that compares a key with each of the values."""
    conditions = [{"key": "k", "operator": "equals", "value": value} for value in values or ["x"]]
    return {"id": filter_id, "name": "Bots", "conditions": conditions, **fields}


def file(**org_units: list[dict[str, Any]]) -> FilterFile:
    """The file that names these org units, each with the filters of both kinds."""
    return FilterFile.model_validate(
        {
            "org_units": {
                org_unit: {
                    "velocity_filters": [one for one in found if "threshold" in one],
                    "metadata_filters": [one for one in found if "conditions" in one],
                }
                for org_unit, found in org_units.items()
            }
        }
    )


@dataclass(frozen=True)
class Book:
    """The filters of a fresh database."""

    postgres: Postgres
    connection: asyncpg.Connection
    url: str

    async def apply(self, **org_units: list[dict[str, Any]]) -> tuple[int, int, int, int]:
        """How many were added, changed, removed and left."""
        done = await filters.apply(self.postgres, file(**org_units), "ann")
        return done.added, done.changed, done.removed, done.unchanged

    async def rules(self) -> Rules:
        """What a worker that starts now would decide with."""
        return (await Rulebook.load(self.postgres, "velocity,metadata")).rules

    async def revision(self) -> int:
        """The rule revision."""
        found: int = await self.connection.fetchval("SELECT revision FROM rule_state")
        return found

    async def column(self, name: str, filter_id: str = "vf", org_unit: str = "acme") -> Any:
        """One column of a filter's row."""
        statement = f"SELECT {name} FROM filters WHERE org_unit = $1 AND id = $2"
        return await self.connection.fetchval(statement, org_unit, filter_id)

    async def history(self, filter_id: str = "vf") -> list[tuple[Any, ...]]:
        """Version, kind, whether it was a deletion, and who changed it, oldest first."""
        rows = await self.connection.fetch(
            "SELECT version, kind, definition IS NULL, changed_by FROM filter_versions"
            " WHERE org_unit = 'acme' AND id = $1 ORDER BY revision",
            filter_id,
        )
        return [tuple(row) for row in rows]


@pytest.fixture
async def book(database: str) -> AsyncIterator[Book]:
    """A database without filters."""
    postgres = await Postgres.connect(database, size=3)
    connection = await asyncpg.connect(database)
    yield Book(postgres, connection, database)
    await connection.close()
    await postgres.close()
