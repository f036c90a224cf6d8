"""What `processor doctor` asks Postgres."""

import re
from collections.abc import Sequence
from typing import Any

import asyncpg

from processor.failures import StartRefused
from processor.io import migrate
from processor.io.clock import now_ms
from processor.io.postgres import POOL_SIZE, Postgres
from processor.io.workers import SEEN_WITHIN_MS
from processor.pure import checkup as judge
from processor.pure.checkup import Rights
from processor.pure.findings import Finding, fault, ok
from processor.settings import Settings

_CREATED = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
TABLES = sorted({name for one in migrate.MIGRATIONS for name in _CREATED.findall(one.sql)})


async def postgres_server(settings: Settings) -> Sequence[Finding]:
    """Version, durability, schema, room, permissions and clock.

    Raises `StartRefused` or `Retryable` where Postgres is away.
    """
    postgres = await Postgres.connect(settings.database_url.get_secret_value(), size=1)
    try:
        asked = now_ms()
        (row,) = await postgres.fetch("checkup_server")
        here = (asked + now_ms()) // 2
        told = _told(row)
        clock = judge.clock("postgres clock", row["now"] - here)
        findings, workers = await _schema(postgres)
        room = judge.room(told, POOL_SIZE, workers)
        return [*judge.postgres(told), *findings, *room, clock]
    finally:
        await postgres.close()


async def _schema(postgres: Postgres) -> tuple[Sequence[Finding], int]:
    """What may be done with the schema, where it is the one we know; and how many workers run."""
    try:
        await migrate.look(postgres)
        (row,) = await postgres.fetch("checkup_rights", TABLES, SEEN_WITHIN_MS)
    except StartRefused as refused:
        said, _, todo = str(refused).partition(": ")
        return [fault("postgres schema", said, todo)], 0
    except asyncpg.InsufficientPrivilegeError as error:
        return [fault("postgres permissions", str(error), judge.AS_OWNER)], 0
    version = f"{migrate.MIGRATIONS[-1].version:04d}"
    rights = Rights(row["user"], row["lacking"], row["hidden"], row["api_role"], row["workers"])
    return [ok("postgres schema", version), judge.rights(rights)], rights.workers


def _told(row: Any) -> judge.Postgres:
    return judge.Postgres(
        row["version"],
        row["encoding"],
        row["replica"],
        row["read_only"],
        {name: row[name] for name in ("fsync", "synchronous_commit")},
        row["connections"],
        row["most_connections"],
        row["locks"],
    )
