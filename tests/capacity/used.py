"""What the parts have used so far: CPU time of their processes, bytes they keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from processor.bench.used import cpu
from processor.io.redis import Server


@dataclass(frozen=True)
class Used:
    """Seconds of CPU of each part, bytes of Postgres' WAL and database, and the number of events stored."""

    cpu: Mapping[str, float]
    wal: int
    stored: int
    events: int

    def since(self, before: "Used") -> "Used":
        """What has come since."""
        cpu = {part: spent - before.cpu[part] for part, spent in self.cpu.items()}
        wal, stored = self.wal - before.wal, self.stored - before.stored
        return Used(cpu, wal, stored, self.events - before.events)


async def used(database: asyncpg.Connection, pids: Mapping[str, Sequence[int]]) -> Used:
    """By now; of each part its servers, main processes."""
    row = await database.fetchrow(
        "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, pg_database_size(current_database()), (SELECT count(*) FROM events)"
    )
    assert row is not None
    return Used({part: cpu(own) for part, own in pids.items()}, int(row[0]), row[1], row[2])


async def held(url: str) -> int:
    """Bytes of data in Valkey, or in all primaries of a cluster."""
    server = await Server.connect(url)
    try:
        told = await server.client.each("INFO", "memory")
        return sum(memory["used_memory_dataset"] for memory in told.values())
    finally:
        await server.close()


def log_bytes(folder: Path, topic: str) -> int:
    """Of all partitions of a topic."""
    logs = (folder / "stack" / "kafka" / "data").glob(f"{topic}-*/*.log")
    return sum(path.stat().st_size for path in logs)
