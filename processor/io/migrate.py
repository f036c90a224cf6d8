"""The schema: the numbered files of ``migrations/``, each applied once, in order, in a transaction.

A file that was applied never changes: its checksum is kept.  Concurrent calls wait for each other.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
from msgspec import Struct

from processor.failures import StartRefused
from processor.io.postgres import QUERIES, Postgres, connecting

_MUTEX = "SELECT pg_advisory_lock(7700, 0)"


class Migration(Struct, frozen=True):
    """One file of ``migrations/``."""

    version: int
    name: str
    sql: str
    checksum: str


def read(directory: Path) -> tuple[Migration, ...]:
    """The migrations of a directory (``0001_name.sql`` and so on), ascending."""
    return tuple(_read(path) for path in sorted(directory.glob("[0-9]*.sql")))


def _read(path: Path) -> Migration:
    number, name = re.fullmatch(r"(\d+)_(\w+)", path.stem).groups()  # type: ignore[union-attr]
    sql = path.read_text()
    return Migration(int(number), name, sql, hashlib.sha256(sql.encode()).hexdigest())


MIGRATIONS = read(Path(__file__).with_name("migrations"))


async def migrate(url: str, migrations: Sequence[Migration] = MIGRATIONS) -> Sequence[Migration]:
    """Applies what the database lacks, and returns that.  Raises `StartRefused`."""
    async with connecting():
        connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(_MUTEX)
        return await _apply(connection, migrations)
    except (asyncpg.PostgresError, OSError) as error:
        raise StartRefused(f"cannot migrate the database: {error}") from error
    finally:
        await connection.close()


async def _apply(
    connection: asyncpg.Connection, migrations: Sequence[Migration]
) -> Sequence[Migration]:
    await connection.execute(QUERIES["create_schema_migrations"])
    applied = await connection.fetch(QUERIES["schema_migrations"])
    lacking = behind({row["version"]: row["checksum"] for row in applied}, migrations)
    for migration in lacking:
        async with connection.transaction():
            await connection.execute(migration.sql)
            row = (migration.version, migration.name, migration.checksum)
            await connection.execute(QUERIES["record_schema_migration"], *row)
    return lacking


def behind(applied: Mapping[int, str], migrations: Sequence[Migration]) -> Sequence[Migration]:
    """What a database with these versions (and their checksums) lacks.

    Raises `StartRefused` where it is newer than this program, or was made by other files.
    """
    known = {migration.version: migration for migration in migrations}
    if newer := sorted(applied.keys() - known.keys()):
        raise StartRefused(
            f"the database schema has version {newer[-1]}, which this program does not know:"
            " upgrade the program"
        )
    for version, checksum in sorted(applied.items()):
        if checksum != known[version].checksum:
            raise StartRefused(
                f"migration {version} ({known[version].name}) is not what was applied to this"
                " database: use the program that made it, or another database"
            )
    return [migration for migration in migrations if migration.version not in applied]


async def check(postgres: Postgres) -> None:
    """Raises `StartRefused` where the schema is not exactly the one this program knows."""
    applied: dict[int, str] = {}
    if await postgres.fetchval("has_schema_migrations"):
        rows = await postgres.fetch("schema_migrations")
        applied = {row["version"]: row["checksum"] for row in rows}
    if behind(applied, MIGRATIONS):
        raise StartRefused("the database schema is behind this program: run `processor migrate`")
