"""Takes old events out of Postgres, a few thousand in a transaction.

A step locks the rows it removes and nothing that ingest waits for.  Whatever ends it, what is committed is gone and counted, and
another run goes on.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
from msgspec import Struct

from processor.failures import Retryable, StartRefused
from processor.io.counts import CHANGES
from processor.io.postgres import QUERIES, Connection, Postgres
from processor.pure import timestamps
from processor.pure.purge import Widest

STEP_ROWS = 5_000
LONGEST_PAUSE_S = 1.0
TRIES = 30
RETRY_S = 1.0
_COUNTS = frozenset({"purge_trie", "purge_hours"})
"""While a step of these runs, nobody folds counts."""


class Held(Struct, frozen=True):
    """Offsets of a partition of the raw topic, from `first` to before `before`, that Kafka holds."""

    partition: int
    first: int
    before: int


class Order(Struct, frozen=True):
    """What is to go."""

    cutoff: int
    """Received and occurred before, ms."""
    topic: str
    held: Sequence[Held]
    by: str
    details: dict[str, object]
    """For the audit log."""


class Found(Struct, frozen=True):
    """What became of the old events."""

    gone: dict[str, int]
    """How many went, by org unit."""
    kept: int
    """How many stay, since Kafka holds their messages."""


class Beginning(Struct, frozen=True):
    """What Postgres says before anything goes."""

    now: int
    widest: Widest | None


async def begin(postgres: Postgres) -> Beginning:
    """Raises `StartRefused` where this user may not purge."""
    (row,) = await postgres.fetch("purge_begins")
    if row["hidden"]:
        raise StartRefused(
            "row-level security hides events from this user: let DATABASE_URL name the role that ran"
            " `processor migrate`"
        )
    widest = Widest(row["org_unit"], row["id"], row["window_ms"]) if row["id"] else None
    return Beginning(row["now"], widest)


async def purge(
    postgres: Postgres, order: Order, progress: Callable[[str, int], None], rows: int = STEP_ROWS
) -> Found:
    """Removes what is to go; `progress` hears the number of each org unit after every step.

    Raises `StartRefused`: at its end where it could not forget what was kept about the events of an org unit.
    """
    gone: dict[str, int] = {}
    kept = 0
    untidy: dict[str, StartRefused] = {}
    for unit in await _insisting(partial(postgres.fetch, "purge_org_units")):
        org_unit: str = unit["org_unit"]
        walk = _Walk(postgres, order, org_unit, rows)
        for statement in ("purge_events", "purge_tombstones"):
            await walk.through(statement, partial(progress, org_unit))
        gone[org_unit] = walk.gone
        kept += walk.kept
        try:
            await _Tidying(postgres, org_unit, rows).after(order.cutoff)
        except StartRefused as refused:
            untidy[org_unit] = refused
    await _insisting(partial(postgres.execute, "forget_keys"))
    if untidy:
        raise StartRefused(_left(sum(gone.values()), untidy))
    return Found(gone, kept)


def _left(gone: int, untidy: dict[str, StartRefused]) -> str:
    first = next(iter(untidy.values()))
    return f"{gone} events are purged, but not what was kept about those of {', '.join(untidy)}: {first}"


class _Walk:
    """Steps through the old rows of an org unit."""

    def __init__(self, postgres: Postgres, order: Order, org_unit: str, rows: int) -> None:
        self.gone = self.kept = 0
        self._postgres = postgres
        self._order = order
        self._org_unit = org_unit
        self._rows = rows
        self._audit: int | None = None

    async def through(self, statement: str, progress: Callable[[int], None]) -> None:
        """Until no row is left that it has not looked at; pauses as long as it works."""
        clock = asyncio.get_running_loop().time
        after: tuple[str, int | None, str] = ("", None, "")
        while True:
            begun = clock()
            row = await _insisting(partial(self._step, statement, after))
            await _insisting(partial(self._postgres.fetchval, "fold_counts", CHANGES, 2**62))
            progress(self.gone)
            if row["seen"] < self._rows:
                return
            after = row["event_type"], row["occurred_at"], row["id"]
            await _rest(begun)

    async def _step(self, statement: str, after: tuple[str, int | None, str]) -> Any:
        order = self._order
        async with self._postgres.transaction() as connection:
            await self._wait_for_merges(connection)
            await connection.execute(QUERIES["by_index"])
            event_type, occurred_at, event_id = after
            held = order.held
            row: Any = await connection.fetchrow(
                QUERIES[statement],
                self._org_unit,
                order.cutoff,
                occurred_at,
                event_id,
                self._rows,
                order.topic,
                [one.partition for one in held],
                [one.first for one in held],
                [one.before for one in held],
                *([event_type] if statement == "purge_tombstones" else []),
            )
            audit = await self._audited(connection, row["gone"])
        self.gone, self._audit = self.gone + row["gone"], audit
        self.kept += row["kept"]
        return row

    async def _wait_for_merges(self, connection: Connection) -> None:
        await connection.execute(QUERIES["purge_holds_merges"], self._org_unit)
        if await connection.fetchval(QUERIES["purge_counts_merge"], self._org_unit):
            reason = f"a large merge of {self._org_unit} is being counted, which takes a worker"
            raise Retryable("postgres", reason)

    async def _audited(self, connection: Connection, gone: int) -> int | None:
        if not gone:
            return self._audit
        number = self.gone + gone
        details = {**self._order.details, "events": number}
        audit: int = await connection.fetchval(
            QUERIES["purge_audited"],
            self._audit,
            self._org_unit,
            self._order.by,
            str(number),
            details,
        )
        return audit


class _Tidying:
    """Forgets what was kept about events of an org unit that are gone, `rows` rows in a transaction."""

    def __init__(self, postgres: Postgres, org_unit: str, rows: int) -> None:
        self._postgres = postgres
        self._org_unit = org_unit
        self._rows = rows

    async def after(self, cutoff: int) -> None:
        """All of it, of events before that time; raises `StartRefused`."""
        await self._steps("purge_requests", cutoff)
        await self._steps("purge_surges", cutoff)
        org_unit = self._org_unit
        tries = partial(self._postgres.fetch, "purge_tries", org_unit, cutoff)
        for root in await _insisting(tries):
            await self._steps("purge_trie", root["lead_id"], root["slot"])
        await self._steps("purge_hours", cutoff)

    async def _steps(self, statement: str, *what: object) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            if await _insisting(partial(self._step, statement, what)) < self._rows:
                return
            await _rest(begun)

    async def _step(self, statement: str, what: Sequence[object]) -> int:
        async with self._postgres.transaction() as connection:
            await connection.execute(QUERIES["by_index"])
            if statement in _COUNTS:
                await connection.execute(QUERIES["purge_holds_counts"])
            done = await connection.execute(QUERIES[statement], self._org_unit, *what, self._rows)
        return int(done.removeprefix("DELETE "))


async def _rest(begun: float) -> None:
    """As long as the step took, so that others come first."""
    spent = asyncio.get_running_loop().time() - begun
    await asyncio.sleep(min(LONGEST_PAUSE_S, spent))


async def _insisting(call: Callable[[], Any]) -> Any:
    """What the call returns, tried again for a while where it may succeed later; raises `StartRefused`."""
    for left in range(TRIES - 1, -1, -1):
        try:
            return await call()
        except Retryable as error:
            if not left:
                raise StartRefused(f"{error}; run the purge again to go on") from error
            await asyncio.sleep(RETRY_S)
        except asyncpg.InsufficientPrivilegeError as error:
            reason = f"{error}: let DATABASE_URL name the role that ran `processor migrate`"
            raise StartRefused(reason) from error
    raise AssertionError


def details(older_than: str, cutoff: int) -> dict[str, object]:
    """What the audit log says beside the number."""
    return {"older_than": older_than, "before": timestamps.to_text(cutoff)}
