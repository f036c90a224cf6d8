"""What the decision path is tested on: the same world of fakes, or of Postgres and Redis."""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
import orjson
import pytest
import redis.asyncio
from msgspec import Struct

from processor.embedded import Stack
from processor.io import filters, merges
from processor.io.past import Contents, Past, Window
from processor.io.postgres import Postgres
from processor.io.redis import Server
from processor.io.redis_client import Single
from processor.io.rulebook import Rulebook
from processor.io.store import Events
from processor.io.windows import Windows
from processor.ports import Answer, EventKey, Reading, Recorded
from processor.ports import Events as EventsPort
from processor.ports import Rulebook as RulebookPort
from processor.ports import Windows as WindowsPort
from processor.pure.triage import triage
from processor.pure.types import Case, Event, MergeCommand, Root, Ruling, Seen
from processor.pure.velocity import decide
from tests import harness
from tests.contract.filter_world import file
from tests.fakes import Database, FakeEvents, FakeRulebook
from tests.fakes_windows import FakeWindows
from tests.unit.merge_records import NoRecord

ORG = "acme"
LONG_AGO = 1_600_000_000_000
"""Far more than windows are kept for before now: nothing absent is trusted there."""
NOW = time.time_ns() // 1_000_000
"""The servers' clock, more or less."""
DAY = 24 * 3600 * 1000

_TABLES = (
    *("events", "lanes", "filters", "filter_versions", "lead_redirects", "lead_epochs"),
    *("lead_moves", "merge_edges", "merges"),
)
_EMPTY = (
    "".join(f"DELETE FROM {table};" for table in _TABLES) + "UPDATE rule_state SET revision = 1"
)


class At(Struct, frozen=True):
    """A record of the raw topic."""

    offset: int
    topic: str = "events.raw"
    partition: int = 0
    timestamp: int | None = 1_000
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class World:
    """Events, windows and rules of one worker; `lateness_ms` is what its windows keep.  Rules never are stale here."""

    def __init__(self, events: EventsPort, windows: WindowsPort, rulebook: RulebookPort) -> None:
        self.events = events
        self.windows = windows
        self.rulebook = rulebook
        self.offset = 0

    async def filters(self, *documents: dict[str, Any], org_unit: str = ORG) -> None:
        """Changes the filters as `filters apply` does, and reloads."""
        raise NotImplementedError

    async def lose(self) -> None:
        """Redis forgets everything."""
        raise NotImplementedError

    async def merge(self, target: str, *sources: str) -> None:
        """Redirects leads and gives the target a new epoch; rows are not moved."""
        raise NotImplementedError

    async def unmerge(self, target: str, *sources: str) -> None:
        """Takes back merges of sources that nothing was merged into; rows are not moved."""
        raise NotImplementedError

    async def root(self, org_unit: str, lead_id: str) -> Root:
        """Root and epoch of a lead, as they are now."""
        raise NotImplementedError

    async def stored(self) -> dict[EventKey, str | None]:
        """The reasons of all rows but those of merges."""
        raise NotImplementedError

    async def delete(self, event_id: str) -> None:
        """Leaves a tombstone."""
        raise NotImplementedError

    def event(self, event_id: str, at: int = LONG_AGO, lead_id: str = "A", **more: Any) -> Event:
        """An event of a message of its own, unless `record` is given."""
        self.offset += 1
        fields = {"event_type": "Page View", "org_unit": ORG, "metadata": {}, **more}
        fields.setdefault("record", At(self.offset))
        fields.setdefault("metadata_json", orjson.dumps(fields["metadata"]))
        return Event(id=event_id, lead_id=lead_id, occurred_at=at, **fields)

    async def cases(self, *events: Event) -> list[Case]:
        """Their cases under the rules in hand and the leads as they are."""
        rules = self.rulebook.rules
        return [triage(e, await self.root(e.org_unit, e.lead_id), rules) for e in events]

    async def read(self, *events: Event) -> list[Seen]:
        """What the first filter that watches each event sees."""
        reading = await self.windows.read(await self.cases(*events))
        return [seen[0] for seen in reading.seen]

    async def decide(self, *events: Event) -> list[Ruling]:
        """Rulings that nothing has been asked of yet but windows."""
        rulings, _ = await self.decided(*events)
        return rulings

    async def record(self, rulings: Sequence[Ruling]) -> Answer:
        """Stores rulings made by the rules in hand."""
        return await self.events.record(rulings, self.rulebook.rules.revision)

    async def commit(self, *events: Event) -> list[Ruling]:
        """Decides and stores a batch, but tells no window."""
        rulings = await self.decide(*events)
        assert isinstance(await self.record(rulings), Recorded)
        return rulings

    async def write(self, rulings: Sequence[Ruling]) -> None:
        """Tells windows what is stored, and nothing of what was read of them."""
        reading = Reading([ruling.case for ruling in rulings], ())
        await self.windows.write(reading, [ruling.facts for ruling in rulings])

    async def process(self, *events: Event) -> list[str | None]:
        """A whole batch; its reasons."""
        rulings, reading = await self.decided(*events)
        assert isinstance(await self.record(rulings), Recorded)
        await self.windows.write(reading, [ruling.facts for ruling in rulings])
        return [ruling.reason for ruling in rulings]

    async def decided(self, *events: Event) -> tuple[list[Ruling], Reading]:
        """As `decide`, with what was read."""
        cases = await self.cases(*events)
        reading = await self.windows.read(cases)
        return decide(cases, reading.seen, {}, self.rulebook.rules.revision), reading


class FakeWorld(World):
    """The fakes."""

    def __init__(self, lateness_ms: int) -> None:
        self.database = Database()
        self.fake_windows = FakeWindows(self.database, lateness_ms)
        super().__init__(FakeEvents(self.database), self.fake_windows, FakeRulebook(self.database))

    async def filters(self, *documents: dict[str, Any], org_unit: str = ORG) -> None:
        self.database.change(*documents, org_unit=org_unit)
        await self.rulebook.reload()

    async def lose(self) -> None:
        self.fake_windows.flush()

    async def merge(self, target: str, *sources: str) -> None:
        self.database.merge(ORG, target, *sources)

    async def unmerge(self, target: str, *sources: str) -> None:
        self.database.unmerge(ORG, target, *sources)

    async def root(self, org_unit: str, lead_id: str) -> Root:
        return self.database.root(org_unit, lead_id)

    async def stored(self) -> dict[EventKey, str | None]:
        return {key: row.ruling.reason for key, row in self.database.rows.items()}

    async def delete(self, event_id: str) -> None:
        self.database.delete((ORG, event_id))


async def nothing() -> None:
    """Happens in between where nothing else does."""


class HookedPast(Past):
    """Something may happen right after the past was read."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres)
        self.after_newest: Callable[[], Awaitable[None]] = nothing
        self.after_windows: Callable[[], Awaitable[None]] = nothing
        self.built = 0

    async def newest(self) -> int | None:
        found = await super().newest()
        then, self.after_newest = self.after_newest, nothing
        await then()
        return found

    async def windows(
        self, wanted: Sequence[tuple[Window, int]], lateness_ms: int
    ) -> list[Contents]:
        found = await super().windows(wanted, lateness_ms)
        self.built += len(wanted)
        then, self.after_windows = self.after_windows, nothing
        await then()
        return found


class RealWorld(World):
    """Postgres and Redis."""

    def __init__(
        self, postgres: Postgres, connection: asyncpg.Connection, server: Server, lateness_ms: int
    ) -> None:
        self.postgres = postgres
        self.connection = connection
        self.server = server
        self.lateness_ms = lateness_ms
        self.past = HookedPast(postgres)
        windows = Windows(server, self.past, lateness_ms)
        super().__init__(Events(postgres), windows, None)  # type: ignore[arg-type]  # loaded below

    @property
    def redis(self) -> "redis.asyncio.Redis":
        """A client of the very server, where it is one."""
        assert isinstance(self.server.client, Single)
        return self.server.client.redis

    async def filters(self, *documents: dict[str, Any], org_unit: str = ORG) -> None:
        await filters.apply(self.postgres, file(**{org_unit: list(documents)}), "ann")
        await self.rulebook.reload()

    async def lose(self) -> None:
        await self.server.client.each("FLUSHDB")

    async def merge(self, target: str, *sources: str) -> None:
        await self._link("merge", target, sources)

    async def unmerge(self, target: str, *sources: str) -> None:
        await self._link("unmerge", target, sources)

    async def _link(
        self, kind: Literal["merge", "unmerge"], target: str, sources: tuple[str, ...]
    ) -> None:
        self.offset += 1
        record, message = NoRecord(offset=self.offset), secrets.token_hex(8)
        command = MergeCommand(record, message, ORG, target, sources, None, kind, LONG_AGO)
        await merges.apply(self.postgres, command)

    async def root(self, org_unit: str, lead_id: str) -> Root:
        row = await self.connection.fetchrow(
            """SELECT l.lead, coalesce(e.epoch, 0) FROM (SELECT coalesce((
                SELECT to_lead FROM lead_redirects WHERE org_unit = $1 AND from_lead = $2), $2) AS lead) l
            LEFT JOIN lead_epochs e ON e.org_unit = $1 AND e.lead_id = l.lead""",
            org_unit,
            lead_id,
        )
        assert row is not None
        return Root(row[0], row[1])

    async def stored(self) -> dict[EventKey, str | None]:
        rows = await self.connection.fetch(
            "SELECT org_unit, id, suppression_reason FROM events WHERE event_type NOT LIKE 'Lead %'"
        )
        return {(row[0], row[1]): row[2] for row in rows}

    async def delete(self, event_id: str) -> None:
        statement = "UPDATE events SET deleted_at = now(), metadata = '{}' WHERE id = $1"
        await self.connection.execute(statement, event_id)

    async def sizes(self) -> dict[bytes, int]:
        """The sorted sets in Redis, with their sizes."""
        return {
            key: await self.redis.zcard(key)
            async for key in self.redis.scan_iter()
            if await self.redis.type(key) == b"zset"
        }

    async def begin(self) -> None:
        """As a worker does that starts."""
        await Windows(self.server, self.past, self.lateness_ms).open()

    async def another(self) -> "RealWorld":
        """Another worker on the same servers."""
        return await self.at(self.server)

    async def at(self, server: Server) -> "RealWorld":
        """Another worker, perhaps on another Redis."""
        world = RealWorld(self.postgres, self.connection, server, self.lateness_ms)
        world.rulebook = await Rulebook.load(self.postgres, "velocity,metadata")
        world.offset = 1_000_000
        return world


@pytest.fixture(scope="module")
def scratch(stack: Stack, template: str) -> Iterator[str]:
    """The URL of a migrated database for the tests of a module, each of which empties it first."""
    name = harness.create_database(stack.postgres, template)
    yield harness.database_url(stack.postgres, name)
    harness.drop_database(stack.postgres, name)


@asynccontextmanager
async def real_world(scratch: str, redis_url: str, lateness_ms: int) -> AsyncIterator[RealWorld]:
    """A world where nothing has happened yet."""
    postgres = await Postgres.connect(scratch)
    connection = await asyncpg.connect(scratch)
    server = await Server.connect(redis_url)
    try:
        await connection.execute(_EMPTY)
        world = RealWorld(postgres, connection, server, lateness_ms)
        world.rulebook = await Rulebook.load(postgres, "velocity,metadata")
        yield world
    finally:
        await server.close()
        await connection.close()
        await postgres.close()
