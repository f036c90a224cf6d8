"""The schema on a real Postgres: applied once, by whoever comes first, and never guessed at."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

import schemas
from processor.failures import StartRefused
from processor.io.migrate import MIGRATIONS, Migration, check, migrate
from processor.io.postgres import Postgres
from tests import harness

NEXT = Migration(9999, "next", "CREATE TABLE next (); CREATE TABLE other ()", "0")
BROKEN = Migration(9999, "broken", "CREATE TABLE next (); SELECT 1 / 0", "0")


@pytest.fixture
async def connection(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    """To look at a database that begins without a schema."""
    connection = await asyncpg.connect(empty_database)
    yield connection
    await connection.close()


async def test_concurrent_calls_apply_each_migration_once(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    """One does the work, the others wait and find nothing to do."""
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(migrate(empty_database)) for _ in range(5)]
    applied = sorted((call.result() for call in calls), key=len)
    assert applied == [[], [], [], [], list(MIGRATIONS)]
    versions = await connection.fetch("SELECT version FROM schema_migrations ORDER BY version")
    assert [row["version"] for row in versions] == [one.version for one in MIGRATIONS]


async def test_a_repeated_call_does_nothing(empty_database: str) -> None:
    """And a later one applies only what came since."""
    await migrate(empty_database)
    assert await migrate(empty_database) == []
    assert await migrate(empty_database, [*MIGRATIONS, NEXT]) == [NEXT]


async def test_a_migration_is_applied_whole_or_not_at_all(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    """Those before it stay, and the next call begins with it."""
    with pytest.raises(StartRefused, match="cannot migrate the database: division by zero"):
        await migrate(empty_database, [*MIGRATIONS, BROKEN])
    assert await connection.fetchval("SELECT to_regclass('next') IS NULL")
    assert await migrate(empty_database, [*MIGRATIONS, NEXT]) == [NEXT]


async def test_a_newer_schema_is_left_alone(empty_database: str) -> None:
    """A program that is older than its database says so."""
    await migrate(empty_database, [*MIGRATIONS, NEXT])
    with pytest.raises(StartRefused, match="version 9999, which this program does not know"):
        await migrate(empty_database)


async def test_a_migration_never_changes_after_it_was_applied(empty_database: str) -> None:
    """Two databases of one version are alike."""
    await migrate(empty_database)
    changed = [replace(MIGRATIONS[0], checksum="other"), *MIGRATIONS[1:]]
    with pytest.raises(StartRefused, match=r"migration 1 \(tables\) is not what was applied"):
        await migrate(empty_database, changed)


async def test_a_start_on_an_older_schema_is_refused(empty_database: str) -> None:
    """The line names the command."""
    postgres = await Postgres.connect(empty_database, size=1)
    try:
        with pytest.raises(StartRefused, match="run `processor migrate`"):
            await check(postgres)
        await migrate(empty_database)
        await check(postgres)
        await migrate(empty_database, [*MIGRATIONS, NEXT])
        with pytest.raises(StartRefused, match="upgrade the program"):
            await check(postgres)
    finally:
        await postgres.close()


async def test_an_unreachable_server_is_one_line() -> None:
    """It names the variable to look at."""
    with pytest.raises(StartRefused, match=r"cannot connect to Postgres: .*; check DATABASE_URL"):
        await migrate("postgresql://127.0.0.1:1/nowhere")


@pytest.mark.parametrize(
    ("table", "row"),
    [("events", schemas.EventRow), ("lead_redirects", schemas.LeadRedirectRow)],
)
async def test_tables_have_the_columns_that_are_promised(
    database: str, table: str, row: type[schemas.EventRow | schemas.LeadRedirectRow]
) -> None:
    """By name, and null only where the model says so."""
    connection = await asyncpg.connect(database)
    try:
        columns = await connection.fetch(
            "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = $1",
            table,
        )
    finally:
        await connection.close()
    nullable = {column["column_name"]: column["is_nullable"] == "YES" for column in columns}
    for name, field in row.model_fields.items():
        assert nullable[name] == (type(None) in getattr(field.annotation, "__args__", ())), name


def test_the_command_says_what_it_did(empty_database: str) -> None:
    """Each migration, then that there is nothing to do."""
    environment = {"DATABASE_URL": empty_database}
    lines = harness.processor(environment, "migrate").splitlines()
    assert lines[0] == "applied 0001 tables"
    assert lines[-1] == f"schema is at {MIGRATIONS[-1].version:04d}"
    assert harness.processor(environment, "migrate") == "schema is up to date\n"
