"""What Kafka, Postgres and Redis say in the end: all that the checker may look at.  Nobody's word is taken but theirs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import redis

from processor.demo.recount import recount
from processor.io.kafka import Partition
from processor.io.kafka_committed import Member
from tests import harness
from tests.faults.history import History

BEFORE = "before"
"""The topic of rows that were there before all else: no message asked for them, and nobody was told of them."""
ROWS = """
    SELECT org_unit, id, lead_id, original_lead_id, event_type, metadata::text AS metadata, suppression_reason,
           suppressed_by::text AS suppressed_by, (extract(epoch FROM occurred_at) * 1000)::bigint AS at,
           source_topic, source_partition, source_offset, rules, counted, exceeded::text AS exceeded,
           deleted_at IS NOT NULL AS deleted
      FROM events WHERE source_topic <> $1
"""
WATCHED = """
    SELECT org_unit, id, event_type, threshold, window_ms, keep_first, window_revision
      FROM filters WHERE kind = 'velocity' AND enabled AND NOT deleted
"""
EPOCHS = "SELECT org_unit, lead_id, epoch FROM lead_epochs"
FILLED = "SELECT DISTINCT org_unit, lead_id FROM events WHERE source_topic = $1"
_MESSAGE = ("org_unit", "id", "lead_id", "original_lead_id", "suppression_reason", "suppressed_by")


class Row(NamedTuple):
    """A stored event."""

    org_unit: str
    id: str
    lead_id: str
    original_lead_id: str | None
    event_type: str
    metadata: str
    suppression_reason: str | None
    suppressed_by: str | None
    at: int
    source_topic: str
    source_partition: int
    source_offset: int
    rules: int
    counted: bool
    exceeded: str | None
    deleted: bool

    @property
    def key(self) -> tuple[str, str]:
        """What names an event."""
        return self.org_unit, self.id

    @property
    def place(self) -> tuple[str, int, int]:
        """Of the message that committed it."""
        return self.source_topic, self.source_partition, self.source_offset

    @property
    def raw_lead(self) -> str:
        """The lead that the event named."""
        return self.original_lead_id or self.lead_id


class Published(NamedTuple):
    """An enriched message, as far as invariants speak of it."""

    org_unit: str
    id: str
    lead_id: str
    original_lead_id: str | None
    suppression_reason: str | None
    suppressed_by: Any

    @property
    def key(self) -> tuple[str, str]:
        """What names an event."""
        return self.org_unit, self.id


class Filter(NamedTuple):
    """A velocity filter in force."""

    org_unit: str
    id: str
    event_type: str
    threshold: int
    window_ms: int
    keep_first: bool
    revision: int


class Held(NamedTuple):
    """A complete window of the generation in force, as Redis holds it."""

    org_unit: str
    lead_id: str
    epoch: int
    revision: int
    floor: int
    times: tuple[int, ...]
    exceeding: tuple[int, ...]


@dataclass
class Evidence:
    """Taken when all is drained, or when that is given up."""

    rows: list[Row] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    letters: list[tuple[str, int, int]] = field(default_factory=list)
    """The place of the record that each is about."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    filters: list[Filter] = field(default_factory=list)
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    filled: set[tuple[str, str]] = field(default_factory=set)
    """Leads with rows that were there before, which are not among the rows here."""
    windows: list[Held] = field(default_factory=list)
    recount: list[str] = field(default_factory=list)
    """What the independent recount of all stored verdicts finds wrong."""
    recovery_s: float = 0.0
    """From the heal of the last fault to the last commit."""
    most_rss_mb: float = 0.0
    """Of the largest worker."""


async def collect(world: harness.World, history: History) -> Evidence:
    """Everything but recovery and memory, which somebody watched meanwhile."""
    found = Evidence()
    connection: Any = await asyncpg.connect(world.postgres)
    try:
        found.rows = [Row(*record.values()) for record in await connection.fetch(ROWS, BEFORE)]
        found.filters = [Filter(*record.values()) for record in await connection.fetch(WATCHED)]
        epochs = await connection.fetch(EPOCHS)
        found.epochs = {(r["org_unit"], r["lead_id"]): r["epoch"] for r in epochs}
        full = await connection.fetch(FILLED, BEFORE)
        found.filled = {(r["org_unit"], r["lead_id"]) for r in full}
        found.recount = [str(mismatch) for mismatch in (await recount(connection)).mismatches]
    finally:
        await connection.close()
    messages = await harness.read_topic(world.kafka, world.enriched)
    found.published = [_published(json.loads(m.value or b"null")) for m in messages]
    letters = await harness.read_topic(world.kafka, world.dead)
    found.letters = [_place(json.loads(letter.value or b"null")) for letter in letters]
    found.committed = await committed(world, history.ends())
    found.windows = windows(world.redis)
    return found


async def committed(
    world: harness.World, lanes: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """The group's offset of each lane."""
    consumer = Member(bootstrap_servers=world.kafka, group_id=world.group, enable_auto_commit=False)
    try:
        await consumer.start()
        return {lane: (await consumer.standing(Partition(*lane))).offset or 0 for lane in lanes}
    finally:
        await consumer.stop()


def windows(url: str) -> list[Held]:
    """What Redis holds complete, of the generation in force."""
    found = []
    server: Any = redis.Redis.from_url(url)
    with server:
        for key in server.scan_iter(match=b"w1:{*}:*"):
            sentinel, _, rest = key.partition(b"}:")
            generation, _, suffix = rest.partition(b":")
            if suffix.endswith(b":x") or generation != server.hget(sentinel + b"}", "generation"):
                continue
            held = _held(server, key, suffix.decode())
            if held is not None:
                found.append(held)
    return found


def _held(server: Any, key: bytes, suffix: str) -> Held | None:
    revision, epoch, name = suffix.split(":", 2)
    org_unit, _, lead = name.partition("\0")
    (marker, floor), *members = server.zrange(key, 0, -1, withscores=True)
    if marker != b"C":
        return None
    exceeding = server.zrange(key + b":x", 0, -1, withscores=True)
    return Held(
        org_unit,
        lead,
        int(epoch),
        int(revision),
        int(floor),
        tuple(int(at) for _, at in members),
        tuple(int(at) for _, at in exceeding),
    )


def _published(event: dict[str, Any]) -> Published:
    return Published(*(event[name] for name in _MESSAGE))


def _place(letter: dict[str, Any]) -> tuple[str, int, int]:
    return letter["topic"], letter["partition"], letter["offset"]
