"""The workers there are: each tells that it lives and which rules it decides with, and anybody may look.

A worker that has nothing to do notices newer rules here; one that has notices them at its next commit anyway.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Sequence

from msgspec import Struct

from processor import telemetry
from processor.io.postgres import Postgres
from processor.io.rulebook import Rulebook

BEAT_S = 2.0
SEEN_WITHIN_MS = 30_000
"""A worker that was not seen for so long is gone, or cut off from Postgres."""


class Worker(Struct, frozen=True):
    """A worker, by Postgres' clock."""

    id: str
    rules_revision: int
    """Of the rules it decides with."""
    started_at: int
    seen_at: int


class Presence(Struct, frozen=True):
    """The rule revision in force, and the workers there are."""

    revision: int
    workers: Sequence[Worker]


def identity() -> str:
    """A name that no other worker has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


async def heart(
    postgres: Postgres,
    rulebook: Rulebook,
    worker: str,
    answered: Callable[[], None],
    pause: float = BEAT_S,
) -> None:
    """Beats until cancelled, every `pause` seconds; rules that changed are fetched and told of at once.

    `answered` is called after each beat.  Raises `Retryable` while Postgres is away.
    """
    started: int | None = None
    while True:
        for _ in range(2):
            held = rulebook.rules.revision
            (row,) = await postgres.fetch("worker_beats", worker, held, started)
            started = row["started_at"]
            telemetry.PENDING_MOVES.set(row["pending_moves"])
            telemetry.UNCOUNTED.set(row["uncounted_changes"])
            if row["revision"] == held:
                break
            await rulebook.reload()
        answered()
        await asyncio.sleep(pause)


async def seen(postgres: Postgres) -> Presence:
    """Workers seen within `SEEN_WITHIN_MS`; raises `Retryable`."""
    rows = await postgres.fetch("workers_seen", SEEN_WITHIN_MS)
    return Presence(
        rows[0]["revision"],
        [
            Worker(row["id"], row["rules_revision"], row["started_at"], row["seen_at"])
            for row in rows
            if row["id"] is not None
        ],
    )
