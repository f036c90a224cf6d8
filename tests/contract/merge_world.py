"""A fresh database for each merge test, an ingester that keeps to the locking protocol, and interleavings on command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, Literal, TypeVar

import asyncpg
import orjson
import pytest

from processor.failures import Retryable
from processor.io import merges, store
from processor.io.merges import Merged
from processor.io.postgres import QUERIES, Postgres
from processor.pure.types import Case, Event, Facts, MergeCommand, Root, Ruling
from tests.harness_waiting import until
from tests.unit.merge_records import NoRecord

T = TypeVar("T")
ORG = "acme"


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """As a lane does: the same call until it succeeds."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Retryable:
                await asyncio.sleep(0.01)


class People:
    """One database; every event and merge message gets the next offset."""

    def __init__(self, postgres: Postgres, pool: asyncpg.Pool) -> None:
        self.postgres = postgres
        self.pool = pool
        self._offsets = count(1)
        self.message = ""
        """The id of the last merge message."""

    def command(
        self,
        target: str,
        *sources: str,
        kind: Literal["merge", "unmerge"] = "merge",
        requested_by: str | None = None,
    ) -> MergeCommand:
        """A new message of the merge topic."""
        offset = next(self._offsets)
        record = NoRecord(offset=offset, timestamp=1000 + offset)
        names = tuple(dict.fromkeys(sources))
        self.message = f"m{offset}"
        at = 1000 + offset
        return MergeCommand(record, self.message, ORG, target, names, requested_by, kind, at)

    async def merge(self, target: str, *sources: str) -> Merged:
        """Merges by a new message; rows are not moved yet."""
        command = self.command(target, *sources)
        return await again(partial(merges.apply, self.postgres, command))

    async def unmerge(self, target: str, *sources: str) -> Merged:
        """Unmerges by a new message; rows are not moved yet."""
        command = self.command(target, *sources, kind="unmerge")
        return await again(partial(merges.apply, self.postgres, command))

    async def roots(self, leads: list[str], connection: Any = None) -> list[tuple[str, int]]:
        """Root and epoch of leads, as an ingester reads them before it decides."""
        rows = await (connection or self.pool).fetch(
            """SELECT coalesce(r.to_lead, lead), coalesce(e.epoch, 0)
            FROM unnest($1::text[]) WITH ORDINALITY AS l (lead, n)
            LEFT JOIN lead_redirects r ON r.org_unit = $2 AND r.from_lead = lead
            LEFT JOIN lead_epochs e ON e.org_unit = $2 AND e.lead_id = coalesce(r.to_lead, lead)
            ORDER BY n""",
            leads,
            ORG,
        )
        return [(row[0], row[1]) for row in rows]

    async def ingest(self, *events: tuple[str, str]) -> int:
        """Stores events given as (id, raw lead), deciding again when leads were merged; how often it decided."""
        for tries in count(1):
            if await self.record(events, await self.roots([lead for _, lead in events])):
                return tries
        raise AssertionError

    async def record(
        self, events: Sequence[tuple[str, str]], roots: Sequence[tuple[str, int]], on: Any = None
    ) -> bool:
        """One call of `record_rulings` with the roots given; False where they are not so any more."""
        offset = next(self._offsets)
        rulings = [
            _ruling(event_id, lead, Root(*root), offset)
            for (event_id, lead), root in zip(events, roots, strict=True)
        ]
        return await self.recorded(rulings, on)

    async def recorded(self, rulings: Sequence[Ruling], on: Any = None, partition: int = 0) -> bool:
        """Stores rulings of one lane; False where their roots are out of date."""
        offset = rulings[0].case.event.record.offset
        columns = store._columns(rulings, 1)
        try:
            await (on or self.pool).fetch(QUERIES["record"], "raw", partition, 1, offset, *columns)
        except asyncpg.PostgresError as error:
            if error.sqlstate != "LR001" or "roots" not in str(error.as_dict()["detail"]):
                raise
            return False
        return True

    async def drain(self, limit: int = 5000) -> int:
        """Moves until no move is pending; rows moved."""
        moved = 0
        while (step := await merges.move_step(self.postgres, limit)) is not None:
            moved += step
        return moved

    async def rows(self) -> dict[str, tuple[str, str | None]]:
        """Lead and original lead of every ingested row."""
        query = "SELECT id, lead_id, original_lead_id FROM events WHERE event_type = 'Page View'"
        return {row[0]: (row[1], row[2]) for row in await self.pool.fetch(query)}

    async def row(self, event_id: str) -> Any:
        """All columns of one row."""
        return await self.pool.fetchrow("SELECT * FROM events WHERE id = $1", event_id)

    async def view(self, lead: str) -> set[str]:
        """Ids of all rows of a lead, as readers see them while moves are pending."""
        rows = await self.pool.fetch(
            """SELECT e.id FROM (SELECT lead_class($1, $2) AS leads) c
            CROSS JOIN LATERAL (SELECT lead_places($1, c.leads) AS places) p
            JOIN events e ON e.org_unit = $1 AND e.lead_id = ANY (p.places)
                AND coalesce(e.original_lead_id, e.lead_id) = ANY (c.leads)""",
            ORG,
            lead,
        )
        return {row[0] for row in rows}

    async def bad(self) -> list[Any]:
        """Rows that stand elsewhere than under the root of their raw lead, or redirects that are not flat."""
        rows: list[Any] = await self.pool.fetch(
            """SELECT e.id, e.lead_id, e.original_lead_id FROM events e
            CROSS JOIN LATERAL (SELECT coalesce(e.original_lead_id, e.lead_id) AS lead) raw
            LEFT JOIN lead_redirects r ON r.org_unit = e.org_unit AND r.from_lead = raw.lead
            WHERE e.lead_id <> coalesce(r.to_lead, raw.lead) OR e.original_lead_id = e.lead_id
            UNION ALL
            SELECT 'chain', a.from_lead, a.to_lead FROM lead_redirects a
            JOIN lead_redirects b ON b.org_unit = a.org_unit AND b.from_lead = a.to_lead"""
        )
        return rows

    async def everything(self) -> list[Any]:
        """All that merges write."""
        tables = ("events", "lead_redirects", "lead_epochs", "merges", "merge_edges", "lead_moves")
        return [sorted(await self.pool.fetch(f"SELECT t::text FROM {name} t")) for name in tables]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        """A connection with a transaction that stands open until the block ends."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def someone_waits(self) -> None:
        """Returns when a call waits for an advisory lock."""
        query = """SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE locktype = 'advisory' AND NOT granted AND datname = current_database())"""
        await until(lambda: self.pool.fetchval(query))


def _ruling(event_id: str, lead: str, root: Root, offset: int) -> Ruling:
    record = NoRecord("raw", offset=offset)
    event = Event(record, ORG, event_id, lead, "Page View", {}, b"{}", 1000 + offset)
    return Ruling(Case(event, root, None, True, ()), None, None, Facts(True, 1, {}))


async def record_merge(
    connection: Any, command: MergeCommand, change: dict[str, Any], countable: int = 1000
) -> bool:
    """Records a merge decided elsewhere on the forest of now; False where it is refused."""
    version = await connection.fetchval("SELECT coalesce(max(id), 0) FROM merges")
    fields, decided = (orjson.dumps(x).decode() for x in (merges._fields(command), change))
    call = "SELECT record_merge($1, $2, $3, $4)"
    done: bool = await connection.fetchval(call, version, fields, decided, countable)
    return done


def joined(survivor: str, source: str) -> dict[str, Any]:
    """The change of merging one root into another."""
    return {"survivor": survivor, "named": [source], "joined": {source: [source]}, "parted": {}}


@pytest.fixture
async def people(database: str) -> AsyncIterator[People]:
    """A database where nobody was ever merged."""
    postgres = await Postgres.connect(database)
    async with asyncpg.create_pool(database, min_size=1, max_size=12) as pool:
        yield People(postgres, pool)
    await postgres.close()
