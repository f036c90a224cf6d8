"""Merges in Postgres: commands decided by `processor.pure.merge`, recorded in one call, and rows moved in chunks afterwards.

Nothing is locked while Python thinks: a decision carries the version of the forest it was made on, and `record_merge` refuses
another one.  Readers see the merged view from its commit on by reading a lead's whole class (``lead_class``, ``lead_places``).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from processor.failures import Retryable
from processor.io.postgres import Postgres
from processor.pure import merge
from processor.pure.merge import Change, Edge, Forest
from processor.pure.types import Json, MergeCommand

COUNTABLE = 1_000
"""Rows of the sources counted while their ingest waits: up to some ten milliseconds; more are counted after the merge."""
CHUNK = 2_000
"""Rows of a chunk of a move, some 20 µs each on an idle server; the next merge of the org unit waits that long."""
COUNTED_AT_ONCE = 50_000
"""Rows counted right after the merge, some 50 milliseconds; more are counted after a rest."""
REST_S = 1.0
"""Lanes build windows of what was merged again just now, and go first."""
_DECISIONS = 10
"""Tries to record a decision while other merges of the org unit come in between."""


class MergeEvent(Struct, frozen=True):
    """The row of a merge on its survivor's timeline: never suppressed, in no window."""

    id: str
    org_unit: str
    lead_id: str
    """The surviving lead now."""
    original_lead_id: str | None
    event_type: str
    metadata: Mapping[str, Json]
    occurred_at: int
    received_at: int


class Merged(Struct, frozen=True):
    """What became of a merge command."""

    survivor: str
    """The root of the target when the merge was committed."""
    named: tuple[str, ...]
    """The sources for which there was something to do; empty: a no-op."""
    events_moved: int
    event: MergeEvent | None
    """To publish; None for a no-op, and where its id was taken by another event or it was deleted."""
    repeated: bool
    """The message had been recorded before."""


async def apply(postgres: Postgres, command: MergeCommand, countable: int = COUNTABLE) -> Merged:
    """Merge or unmerge once for each message id; a repeated one finds what was recorded.

    `countable` bounds the rows counted under locks.  Raises `Retryable`, also where ingest kept a bucket busy for 0.9 s.
    """
    logged = await _logged(postgres, command)
    repeated = logged is not None
    if logged is None:
        logged = await _recorded(postgres, command, countable)
    if logged["counting"] is not None:
        moved = await _counted(postgres, command.org_unit, logged["counting"], logged["batch"])
        await postgres.execute("record_merge_event", logged["id"], _fields(command), moved)
        logged = await _logged(postgres, command)
    return _merged(command, logged, repeated=repeated)


async def _counted(postgres: Postgres, org_unit: str, leads: Sequence[str], batch: int) -> int:
    """How many rows of the leads were recorded before a batch."""
    few: int = await postgres.fetchval("count_rows", org_unit, leads, batch, COUNTED_AT_ONCE)
    if few < COUNTED_AT_ONCE:
        return few
    await asyncio.sleep(REST_S)
    every: int = await postgres.fetchval("count_rows", org_unit, leads, batch, None)
    return every


async def move_step(postgres: Postgres, limit: int = CHUNK) -> int | None:
    """Look at up to `limit` rows of pending moves, of one org unit.

    Rows moved; None where no move is pending, or other workers have them all.  Any number of workers may call it at once, and
    one that dies in between loses nothing.  Raises `Retryable`.
    """
    moved: int | None = await postgres.fetchval("move_events", limit)
    return moved


async def mover(
    postgres: Postgres, progress: Callable[[int], None], idle: float = 0.5, limit: int = CHUNK
) -> None:
    """Move rows until cancelled; `progress` gets the rows of each chunk, `idle` is the pause in seconds where none are left.

    It rests as long as each chunk took, so that a large move leaves half of its share to ingest.
    """
    clock = asyncio.get_running_loop().time
    while True:
        begun = clock()
        try:
            moved = await move_step(postgres, limit)
        except Retryable:
            moved = None  # pending moves are rows: they wait with Postgres, and readers do not need them done
        if moved is not None:
            progress(moved)
        await asyncio.sleep(idle if moved is None else clock() - begun)


def forest_of(rows: Iterable[Any]) -> Forest:
    """The edges that `merge_roots` and `merge_edges` find."""
    return Forest(
        {
            row["source_lead"]: Edge(row["target_lead"], frozenset(row["named"]))
            for row in rows
            if row["source_lead"] is not None
        }
    )


async def _recorded(postgres: Postgres, command: MergeCommand, countable: int) -> Any:
    """The log entry of a new message, after deciding as often as other merges come in between."""
    for _ in range(_DECISIONS):
        version, forest = await _forest(postgres, command)
        change = _plain(merge.decide(forest, command))
        stands = await postgres.fetchval(
            "record_merge", version, _fields(command), change, countable
        )
        logged = await _logged(postgres, command)
        if stands or logged is not None:
            return logged
    raise Retryable("postgres", f"other merges of the org unit came in between {_DECISIONS} times")


async def _forest(postgres: Postgres, command: MergeCommand) -> tuple[int, Forest]:
    """The part of the org unit's forest that decides the command, and its version; roots are enough for a merge."""
    query = "merge_roots" if command.kind == "merge" else "merge_edges"
    leads = [command.target_lead_id, *command.source_lead_ids]
    rows = await postgres.fetch(query, command.org_unit, leads)
    return rows[0]["version"], forest_of(rows)


async def _logged(postgres: Postgres, command: MergeCommand) -> Any:
    rows = await postgres.fetch("merge_logged", command.message_id)
    return rows[0] if rows else None


def _fields(command: MergeCommand) -> dict[str, Json]:
    record = command.record
    timed = record.timestamp is not None and record.timestamp >= 0
    return {
        "message_id": command.message_id,
        "org_unit": command.org_unit,
        "kind": command.kind,
        "target": command.target_lead_id,
        "sources": list(command.source_lead_ids),
        "requested_by": command.requested_by,
        "occurred_at": command.occurred_at,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp if timed else None,
    }


def _plain(change: Change) -> dict[str, Json]:
    return {
        "survivor": change.survivor,
        "named": list(change.named),
        "joined": {root: [*sorted(names)] for root, names in change.joined.items()},
        "parted": {root: [*sorted(leads)] for root, leads in change.parted.items()},
    }


def _merged(command: MergeCommand, logged: Any, *, repeated: bool) -> Merged:
    event = None
    if logged["event_id"] is not None:
        event = MergeEvent(
            logged["event_id"],
            command.org_unit,
            logged["lead_id"],
            logged["original_lead_id"],
            logged["event_type"],
            logged["metadata"],
            logged["occurred_at"],
            logged["received_at"],
        )
    return Merged(
        logged["survivor_lead_id"],
        tuple(logged["merged_lead_ids"]),
        logged["events_moved"],
        event,
        repeated,
    )
