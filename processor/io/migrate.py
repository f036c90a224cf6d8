"""The schema: the numbered files of ``migrations/``, each applied once, in order, in a transaction.

A file that was applied never changes: its checksum is kept.  Concurrent calls wait for each other.

A file whose first line is ``-- compatible: N`` only adds: programs that know the schema up to version N go on working after it,
so that it can be applied while they run.  Every other file ends the compatibility with the programs before it.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from processor.failures import StartRefused
from processor.io.postgres import QUERIES, Postgres, connecting
from processor.pure.checkup import AS_OWNER

_CONNECTION_ENDED = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_MUTEX = "SELECT pg_advisory_lock(7700, 0)"


class Migration(Struct, frozen=True):
    """One file of ``migrations/``."""

    version: int
    name: str
    sql: str
    checksum: str
    compatible: int
    """The least version that a program must know to work on the schema it makes."""


class Applied(Struct, frozen=True):
    """What a database says of a migration it has."""

    checksum: str
    compatible: int


def read(directory: Path) -> tuple[Migration, ...]:
    """The migrations of a directory (``0001_name.sql`` and so on), ascending."""
    return tuple(_read(path) for path in sorted(directory.glob("[0-9]*.sql")))


def _read(path: Path) -> Migration:
    number, name = re.fullmatch(r"(\d+)_(\w+)", path.stem).groups()  # type: ignore[union-attr]
    sql = path.read_text()
    added = re.match(r"-- compatible: (\d+)\n", sql)
    return Migration(
        int(number),
        name,
        sql,
        hashlib.sha256(sql.encode()).hexdigest(),
        int(added[1] if added else number),
    )


MIGRATIONS = read(Path(__file__).with_name("migrations"))


async def migrate(url: str, migrations: Sequence[Migration] = MIGRATIONS) -> Sequence[Migration]:
    """Applies what the database lacks, and returns that.  Raises `StartRefused`."""
    async with connecting():
        connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(_MUTEX)
        return await _apply(connection, migrations)
    except (asyncpg.PostgresError, *_CONNECTION_ENDED) as error:
        raise StartRefused(f"cannot migrate the database: {error}") from error
    finally:
        await connection.close()


async def _apply(
    connection: asyncpg.Connection, migrations: Sequence[Migration]
) -> Sequence[Migration]:
    await connection.execute(QUERIES["create_schema_migrations"])
    lacking = behind(_applied(await connection.fetch(QUERIES["schema_migrations"])), migrations)
    for migration in lacking:
        async with connection.transaction():
            await connection.execute(migration.sql)
            row = (migration.version, migration.name, migration.checksum, migration.compatible)
            await connection.execute(QUERIES["record_schema_migration"], *row)
    return lacking


def _applied(rows: Iterable[Any]) -> Mapping[int, Applied]:
    return {row["version"]: Applied(row["checksum"], row["compatible"]) for row in rows}


def behind(applied: Mapping[int, Applied], migrations: Sequence[Migration]) -> Sequence[Migration]:
    """What a database with these versions lacks.

    Raises `StartRefused` where it is too new for this program, or was made by other files.
    """
    known = {migration.version: migration for migration in migrations}
    newest = max(known, default=0)
    newer = {version: one for version, one in applied.items() if version not in known}
    if any(one.compatible > newest for one in newer.values()):
        raise StartRefused(
            f"the database schema has version {max(newer)}, which this program does not know:"
            " upgrade the program"
        )
    for version in sorted(applied.keys() & known.keys()):
        if applied[version].checksum != known[version].checksum:
            raise StartRefused(
                f"migration {version} ({known[version].name}) is not what was applied to this"
                " database: use the program that made it, or another database"
            )
    return [migration for migration in migrations if migration.version not in applied]


async def check(postgres: Postgres) -> None:
    """Raises `StartRefused` where this program cannot work on the schema, or its user may not read what the schema is."""
    try:
        await look(postgres)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartRefused(f"cannot use the database: {error}; {AS_OWNER}") from error


async def look(postgres: Postgres) -> None:
    """As `check`, but raises asyncpg's error where the user may not read it."""
    applied: Mapping[int, Applied] = {}
    if await postgres.fetchval("has_schema_migrations"):
        applied = _applied(await postgres.fetch("schema_migrations"))
    if behind(applied, MIGRATIONS):
        raise StartRefused("the database schema is behind this program: run `processor migrate`")
