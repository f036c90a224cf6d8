"""The schema on a real Postgres: applied once, by whoever comes first, and never guessed at."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

import schemas
from processor.failures import Retryable, StartRefused
from processor.io.checkup_postgres import postgres_server
from processor.io.migrate import MIGRATIONS, Migration, check, migrate, read
from processor.io.postgres import Postgres, connecting, translated
from processor.pure.checkup import AS_OWNER
from processor.settings import Settings
from tests import harness
from tests.harness_secured import command_of, user_of

NEXT = Migration(9999, "next", "CREATE TABLE next (); CREATE TABLE other ()", "0", 9999)
ADDED = replace(NEXT, compatible=MIGRATIONS[-1].version)
ENDED = Migration(9999, "ended", "SELECT pg_terminate_backend(pg_backend_pid())", "0", 9999)
BROKEN = Migration(9999, "broken", "CREATE TABLE next (); SELECT 1 / 0", "0", 9999)

COUNTED = """
INSERT INTO lead_redirects (org_unit, from_lead, to_lead) VALUES ('acme', 'b', 'a');
INSERT INTO engaged_org_units (org_unit, leads) VALUES ('acme', 2);
INSERT INTO engaged_leads (org_unit, lead_id, events, sessions, first_at, last_at, week, total)
VALUES ('acme', 'a', 1, 1, '2026-01-02', '2026-01-02', 0, 1), ('acme', 'b', 2, 2, '2026-01-01', '2026-01-02 00:05', 0, 2);
INSERT INTO lead_sessions (org_unit, lead_id, started_at, ended_at, events) VALUES ('acme', 'a', '2026-01-02', '2026-01-02', 1),
    ('acme', 'b', '2026-01-01', '2026-01-01', 1), ('acme', 'b', '2026-01-02 00:05', '2026-01-02 00:05', 1);
INSERT INTO lead_scores (org_unit, lead_id, events, week, total, rank)
VALUES ('acme', 'a', 3, 0, 3, 1), ('acme', 'b', 0, 0, 0, 0), ('acme', 'parted', 2, 0, 2, 1)"""
LISTED = """
SELECT lead_id, first_at::text, last_at::text, sessions FROM lead_scores WHERE events > 0"""


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


async def test_a_connection_that_ends_in_a_migration_is_a_refusal(empty_database: str) -> None:
    """As Postgres does that is stopped, or an administrator; the next call begins with the same one."""
    with pytest.raises(StartRefused, match="cannot migrate the database: "):
        await migrate(empty_database, [*MIGRATIONS, ENDED])
    assert await migrate(empty_database, [*MIGRATIONS, NEXT]) == [NEXT]


async def test_leads_that_were_counted_before_are_listed_with_all_they_have(
    empty_database: str, connection: asyncpg.Connection
) -> None:
    """Those of a class together; one that an unmerge has left nothing of is not listed, nor counted."""
    await migrate(empty_database, [one for one in MIGRATIONS if one.version < 17])
    await connection.execute("SET timezone = 'UTC'")
    await connection.execute(COUNTED)
    await migrate(empty_database)
    listed = [tuple(row) for row in await connection.fetch(LISTED)]
    assert listed == [("a", "2026-01-01 00:00:00+00", "2026-01-02 00:05:00+00", 2)]
    assert await connection.fetchval("SELECT leads FROM engaged_org_units") == 1


async def test_a_newer_schema_is_left_alone(empty_database: str) -> None:
    """A program that is older than its database says so."""
    await migrate(empty_database, [*MIGRATIONS, NEXT])
    with pytest.raises(StartRefused, match="version 9999, which this program does not know"):
        await migrate(empty_database)


async def test_a_newer_schema_that_only_added_serves_the_program_before_it(
    empty_database: str,
) -> None:
    """It can be applied while that one runs, and that one can be started again."""
    await migrate(empty_database, [*MIGRATIONS, ADDED])
    assert await migrate(empty_database) == []
    postgres = await Postgres.connect(empty_database, size=1)
    try:
        await check(postgres)
    finally:
        await postgres.close()


async def test_a_program_from_before_what_the_addition_needs_is_refused(
    empty_database: str,
) -> None:
    """It lacks the version that the addition builds on."""
    await migrate(empty_database, [*MIGRATIONS, ADDED])
    with pytest.raises(StartRefused, match="version 9999, which this program does not know"):
        await migrate(empty_database, MIGRATIONS[:-1])


def test_a_file_says_in_its_first_line_whom_it_serves(tmp_path: Path) -> None:
    """Without that line it serves only programs that know it."""
    (tmp_path / "0001_first.sql").write_text("SELECT 1")
    (tmp_path / "0002_added.sql").write_text("-- compatible: 1\nSELECT 2")
    assert [(one.version, one.compatible) for one in read(tmp_path)] == [(1, 1), (2, 1)]


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


@pytest.fixture
def api_user(database: str) -> Iterator[str]:
    """The URL of the API's user, as the runbook makes it, under a name of its own."""
    name = f"u{secrets.token_hex(4)}"
    harness.execute(database, command_of("CREATE ROLE api").replace("ROLE api", f"ROLE {name}"))
    yield user_of(database, name)
    harness.execute(database, f"DROP ROLE {name}")


async def test_a_user_who_may_not_read_the_schema_is_one_line(api_user: str) -> None:
    """It names the role to use instead; the doctor tells it of permissions, not of the schema."""
    postgres = await Postgres.connect(api_user, size=1)
    try:
        with pytest.raises(StartRefused, match=r"denied .*; let DATABASE_URL name the role that"):
            await check(postgres)
    finally:
        await postgres.close()
    findings = await postgres_server(Settings.model_validate({"DATABASE_URL": api_user}))
    (found,) = [one for one in findings if one.level == "fault"]
    assert (found.part, found.todo) == ("postgres permissions", AS_OWNER)


async def test_an_unreachable_server_is_one_line() -> None:
    """It names the variable to look at."""
    with pytest.raises(StartRefused, match=r"cannot connect to Postgres: .*; check DATABASE_URL"):
        await migrate("postgresql://127.0.0.1:1/nowhere")


async def test_a_server_in_another_role_is_one_line(empty_database: str) -> None:
    """And waited for once a worker runs: in a failover no host is primary for a while."""
    url = f"{empty_database}?target_session_attrs=standby"
    with pytest.raises(StartRefused, match=r"cannot connect to Postgres: None of the hosts"):
        await migrate(url)
    with pytest.raises(Retryable, match="None of the hosts"):
        async with translated():
            await asyncpg.connect(url)


async def test_an_error_without_words_is_told_by_its_name() -> None:
    """Such as that of a server that takes connections and says nothing."""
    with pytest.raises(StartRefused, match="cannot connect to Postgres: TimeoutError; check"):
        async with connecting():
            raise TimeoutError


async def test_a_connection_whose_server_has_said_farewell_is_worth_another_try() -> None:
    """Until it is closed the driver takes the farewell for an operation of its own that goes on."""
    with pytest.raises(Retryable, match="another operation"):
        async with translated():
            raise asyncpg.InternalClientError("another operation (2) is in progress")


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
