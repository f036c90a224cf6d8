"""Row-level security is the second line: a statement that forgets its org unit still sees and changes nothing of another.

All of it goes through the very pool of the API.
"""

from typing import Any

import asyncpg
import pytest

from tests.api.client import Api, api

__all__ = ["api"]
pytestmark = pytest.mark.e2e

OURS, THEIRS = "acme", "other"
READABLE = """
SELECT c.oid::regclass::text AS name, c.relrowsecurity AS guarded, EXISTS (
        SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polroles @> ARRAY['processor_api'::regrole::oid]) AS policy,
    has_table_privilege('processor_api', c.oid, 'INSERT') AS inserts,
    has_table_privilege('processor_api', c.oid, 'DELETE') AS deletes,
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND has_column_privilege('processor_api', c.oid, a.attnum, 'UPDATE')) AS updates
FROM pg_class c JOIN pg_attribute o ON o.attrelid = c.oid AND o.attname = 'org_unit'
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace = 'public'::regnamespace
    AND has_any_column_privilege('processor_api', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
ORDER BY 1
"""
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type
FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND a.attidentity = ''
"""
VALUES = {
    "text": "$1", "text[]": "'{}'", "bytea": r"'\x00'", "boolean": "true", "smallint": "1", "integer": "1",
    "bigint": "1", "timestamp with time zone": "now()", "json": "'{}'", "jsonb": "'{}'", "smallint[]": "'{}'",
    "bigint[]": "'{}'", "integer[]": "'{}'", "double precision": "1",
}  # fmt: skip
"""A value of each type; the text is the org unit, so that what is unique stays so."""
CHECKED = {
    ("filters", "kind"): "'velocity'",
    ("merges", "kind"): "'merge'",
    ("lead_scores", "events"): "0",
}


async def insertion(connection: Any, table: str) -> str:
    """A statement that inserts a row of the org unit $1."""
    columns = await connection.fetch(COLUMNS, table)
    values = [CHECKED.get((table, c["name"])) or VALUES[c["type"]] for c in columns]
    names = ", ".join(c["name"] for c in columns)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join(values)})"


@pytest.fixture
async def tables(api: Api) -> list[Any]:
    """Every table with org units that the API's role can use, with a row of two org units in each."""
    found = await api.database.fetch(READABLE)
    async with api.database.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # no foreign keys
        for table in found:
            statement = await insertion(connection, table["name"])
            for org_unit in (OURS, THEIRS):
                await connection.execute(statement, org_unit)
    return found


async def test_every_table_with_org_units_that_the_api_can_use_is_guarded(
    api: Api, tables: list[Any]
) -> None:
    """A new one without a policy makes this fail."""
    assert {"events", "filters", "merges", "audit_log"} <= {table["name"] for table in tables}
    assert [t["name"] for t in tables if not (t["guarded"] and t["policy"])] == []
    await api.database.execute("CREATE TABLE forgotten (org_unit text)")
    await api.database.execute("GRANT SELECT ON forgotten TO processor_api")
    found = await api.database.fetch(READABLE)
    assert [t["name"] for t in found if not (t["guarded"] and t["policy"])] == ["forgotten"]


async def test_a_statement_without_its_where_sees_its_own_org_unit_alone(
    api: Api, tables: list[Any]
) -> None:
    """And outside of any org unit, nothing at all."""
    postgres = api.services.postgres
    for table in tables:
        everything = f"SELECT DISTINCT org_unit FROM {table['name']}"
        assert len(await api.database.fetch(everything)) >= 2, table["name"]
        async with postgres.of_org_unit(OURS) as connection:
            assert [row[0] for row in await connection.fetch(everything)] == [OURS], table["name"]
        async with postgres.transaction() as connection:
            assert await connection.fetch(everything) == [], table["name"]


async def test_nothing_can_be_written_into_another_org_unit(api: Api, tables: list[Any]) -> None:
    """Neither new rows, nor what is there, nor one's own moved over."""
    postgres = api.services.postgres
    written = 0
    for table in tables:
        name = table["name"]
        if table["inserts"]:
            statement = await insertion(api.database, name)
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                async with postgres.of_org_unit(OURS) as connection:
                    await connection.execute(statement, THEIRS)
        for column in table["updates"]:
            written += 1
            async with postgres.of_org_unit(OURS) as connection:
                tag = await connection.execute(
                    f"UPDATE {name} SET {column} = {column} WHERE org_unit = '{THEIRS}'"
                )
            assert tag == "UPDATE 0", (name, column)
            if column == "org_unit":
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with postgres.of_org_unit(OURS) as connection:
                        await connection.execute(f"UPDATE {name} SET org_unit = '{THEIRS}'")
        if table["deletes"]:
            async with postgres.of_org_unit(OURS) as connection:
                await connection.execute(f"DELETE FROM {name}")
            left = await api.database.fetch(f"SELECT DISTINCT org_unit FROM {name}")
            assert [row[0] for row in left] == [THEIRS]
    assert written > 2


async def test_an_org_unit_that_was_entered_is_left_with_the_transaction(api: Api) -> None:
    """The next request on the same connection enters its own."""
    for org_unit in (OURS, THEIRS, OURS):
        async with api.services.postgres.of_org_unit(org_unit) as connection:
            assert await connection.fetchval("SELECT current_org_unit()") == org_unit
    async with api.services.postgres.transaction() as connection:
        assert not await connection.fetchval("SELECT current_org_unit()")


async def test_the_role_of_the_api_owns_nothing_and_cannot_step_over_its_policies(api: Api) -> None:
    """Nor does it see a token's hash but through the prefix of one."""
    async with api.services.postgres.transaction() as connection:
        (role,) = await connection.fetch(
            "SELECT rolname, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname = current_user"
        )
        assert tuple(role) == ("processor_api", False, False, False)
        owned = "SELECT count(*) FROM pg_class WHERE relowner = 'processor_api'::regrole"
        assert await connection.fetchval(owned) == 0
    for statement in (
        "SELECT hash FROM tokens",
        "DELETE FROM events",
        "UPDATE audit_log SET at = now()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with api.services.postgres.of_org_unit(OURS) as connection:
                await connection.execute(statement)
