"""The connection to Postgres: a small pool, named statements, driver errors translated once.

Event times cross as integers: a `timestamptz` is milliseconds since 1970 on this side, exact from year 1 to 9999.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import asyncpg
import orjson
from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

from processor.failures import Failure, Retryable, StartRefused, Unstorable

Connection: TypeAlias = PoolConnectionProxy
POOL_SIZE = 10
ACQUIRED_S = 10.0
"""How long a call waits for a connection of the pool: behind a server that hangs, calls would pile up."""
TRANSACTION_S = 60
"""How long a transaction may take, longer than its calls: a process that freezes in the midst of a call would hold its locks until it
wakes, since the server waits for its next word and counts that as work, not as idleness."""
STREAMED_S = 300.0
"""How long a statement may take whose answer is read in parts: sorting a lead of many millions of rows, for instance."""
API_ROLE = "processor_api"
"""What the API's sessions go on as: it owns nothing, and row-level security holds for it."""
NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
LARGEST_PAGE = 32 << 20
"""Bytes of what is large in the rows of a page."""
_PART = 2_000
_FEW = 10
_LIMITED_SINCE = 17
"""The first version of Postgres that limits transactions."""
_EPOCH_US = 946_684_800_000_000  # Postgres counts from 2000-01-01
_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectInUseError,
    asyncpg.InternalClientError,  # what a connection says between the server's farewell and its end
    asyncpg.InvalidAuthorizationSpecificationError,  # of a session begun later: while a password is changed
    asyncpg.TargetServerAttributeNotMatched,  # in a failover, until one of the hosts is primary again
    OSError,
    TimeoutError,
)


def statements(path: Path) -> dict[str, str]:
    """The statements of a file by name: each begins with a line ``-- name: NAME``, comments may follow."""
    blocks = path.read_text().split("-- name: ")[1:]
    return {name.strip(): body.strip() for name, _, body in (b.partition("\n") for b in blocks)}


QUERIES = {
    name: text
    for path in sorted(Path(__file__).parent.glob("queries*.sql"))
    for name, text in statements(path).items()
}


class TooMuch(Failure):
    """The rows asked for are larger together than may be answered at once."""


class Conflict(Failure):
    """A statement found that what it was asked to store is out of date; `detail` is its JSON."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises `Retryable` for whatever another try may mend, `Conflict` and `Unstorable`; everything else passes."""
    try:
        yield
    except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
        raise Unstorable(error.sqlstate or type(error).__name__) from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == "LR001":
            raise Conflict(str(error), error.detail or "") from error
        if not isinstance(error, _TRANSIENT):
            raise
        raise Retryable("postgres", f"{type(error).__name__}: {error}") from error
    except _TRANSIENT as error:
        raise Retryable("postgres", f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def connecting() -> AsyncIterator[None]:
    """Raises `StartRefused` where the server does not let us in."""
    try:
        yield
    except (*_TRANSIENT, asyncpg.PostgresError, ValueError) as error:
        said = str(error) or type(error).__name__  # a timeout says nothing
        reason = f"cannot connect to Postgres: {said}; check DATABASE_URL"
        raise StartRefused(reason) from error


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda ms: (ms * 1000 - _EPOCH_US,),
        decoder=lambda us: (us[0] + _EPOCH_US) // 1000,
    )
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="text",
        encoder=lambda value: orjson.dumps(value).decode(),
        decoder=orjson.loads,
    )
    if _limits(connection):
        await connection.execute(f"SET transaction_timeout = '{TRANSACTION_S}s'")


def _limits(connection: Connection | asyncpg.Connection) -> bool:
    return connection.get_server_version().major >= _LIMITED_SINCE


class _Session(asyncpg.Connection):
    """Leaves nothing behind in the pool: settings and locks are those of transactions, and nobody listens."""

    def get_reset_query(self) -> str:
        """Nothing: what the default undoes would be one more round trip for each call."""
        return ""


async def page(
    connection: Connection, name: str, size_of: Callable[[Any], int], *args: object
) -> list[Any]:
    """All rows of the statement `name`, each with what is large in it; raises `TooMuch` above `LARGEST_PAGE`."""
    rows: list[Any] = []
    size = 0
    async for row in connection.cursor(QUERIES[name], *args, prefetch=_FEW):
        size += size_of(row)
        if size > LARGEST_PAGE:
            raise TooMuch(f"more than {LARGEST_PAGE} bytes")
        rows.append(row)
    return rows


class Postgres:
    """A pool of at most `POOL_SIZE` connections whose calls name a statement of ``queries*.sql``.

    Every method raises `Retryable` where another try may succeed.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(
        cls, url: str, size: int = POOL_SIZE, more: Mapping[str, str] = NOTHING_MORE
    ) -> "Postgres":
        """`more` are further settings of its sessions.  Raises `StartRefused` where the server does not let us in."""
        async with connecting():
            pool = await asyncpg.create_pool(
                url,
                init_size=1,
                min_size=0,  # more is kept up beside the calls: a traceback every few seconds while the server is away
                max_size=size,
                init=_prepare,
                connection_class=_Session,
                timeout=10,
                command_timeout=30,
                server_settings={
                    "application_name": "processor",
                    "timezone": "UTC",
                    "lock_timeout": "5s",
                    "idle_in_transaction_session_timeout": "5s",
                    "jit": "off",
                    **more,
                },
            )
        return cls(pool)

    async def close(self) -> None:
        """Ends the pool; connections that do not close within 5 s are dropped."""
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def answers(self) -> None:
        """Returns where the server answers; raises `Retryable`."""
        await self.fetchval("answers")

    async def fetch(self, name: str, *args: object) -> list[Any]:
        """All rows of the statement `name`, committed when it returns."""
        async with translated(), self._acquired() as connection:
            rows: list[Any] = await connection.fetch(QUERIES[name], *args)
            return rows

    async def fetch_by_keys(self, name: str, *args: object) -> list[Any]:
        """As `fetch`, where indexes are the only way: a session keeps a plan that was good for the small table of the beginning."""
        async with self.transaction() as connection:
            await connection.execute(QUERIES["by_keys"])
            rows: list[Any] = await connection.fetch(QUERIES[name], *args)
            return rows

    async def stream_by_keys(self, name: str, *args: object) -> AsyncIterator[list[Any]]:
        """As `fetch_by_keys`, part by part, of one snapshot: for what may be as much as a table."""
        async with self.transaction(long=True) as connection:
            await connection.execute(QUERIES["by_keys"])
            cursor = await connection.cursor(QUERIES[name], *args, timeout=STREAMED_S)
            while rows := await cursor.fetch(_PART, timeout=STREAMED_S):
                yield rows

    async def fetchval(self, name: str, *args: object) -> Any:
        """The first column of the first row, None without one."""
        async with translated(), self._acquired() as connection:
            return await connection.fetchval(QUERIES[name], *args)

    async def execute(self, name: str, *args: object) -> str:
        """Runs the statement `name`; its command tag."""
        async with translated(), self._acquired() as connection:
            tag: str = await connection.execute(QUERIES[name], *args)
            return tag

    @asynccontextmanager
    async def transaction(self, *, long: bool = False) -> AsyncIterator[Connection]:
        """A connection inside one READ COMMITTED transaction; `long` for readers, who may take more than `TRANSACTION_S`."""
        async with translated(), self._acquired() as connection, connection.transaction():
            try:
                if long and _limits(connection):
                    await connection.execute("SET LOCAL transaction_timeout = 0")
                yield connection
            except TimeoutError:
                connection.terminate()  # the server hangs: it would not answer a ROLLBACK either
                raise

    def _acquired(self) -> PoolAcquireContext:
        return self._pool.acquire(timeout=ACQUIRED_S)

    @asynccontextmanager
    async def of_org_unit(self, org_unit: str, *, long: bool = False) -> AsyncIterator[Connection]:
        """As `transaction`, in which row-level security shows the API's role this org unit alone."""
        async with self.transaction(long=long) as connection:
            await connection.execute(QUERIES["enter_org_unit"], org_unit)
            yield connection
