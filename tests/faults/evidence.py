"""What Kafka, Postgres and Redis say in the end: all that the checker may look at.  Nobody's word is taken but theirs."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import redis

from processor.demo.recount import recount
from processor.io.kafka import Partition
from processor.io.kafka_committed import Member, UnstableOffsetError
from processor.io.windows_generations import LAYOUT
from processor.io.windows_touched import EXCEEDING
from tests import harness
from tests.faults.history import History, Place

BEFORE = "before"
"""The topic of rows that were there before all else: no message asked for them, and nobody was told of them."""
ROWS = """
    SELECT org_unit, id, lead_id, original_lead_id, event_type, metadata::text AS metadata, suppression_reason,
           suppressed_by::text AS suppressed_by, (extract(epoch FROM occurred_at) * 1000)::bigint AS at,
           (extract(epoch FROM received_at) * 1000)::bigint AS received_at,
           source_topic, source_partition, source_offset, batch, rules, counted, exceeded::text AS exceeded,
           deleted_at IS NOT NULL AS deleted
      FROM events WHERE source_topic <> $1
"""
WATCHED = """
    SELECT org_unit, id, event_type, threshold, window_ms, keep_first, window_revision
      FROM filters WHERE kind = 'velocity' AND enabled AND NOT deleted
"""
EPOCHS = "SELECT org_unit, lead_id, epoch FROM lead_epochs"
TURNS = "SELECT org_unit, message_id, batch FROM merges WHERE cardinality(merged_lead_ids) > 0"
FILLED = """
    SELECT org_unit, coalesce(original_lead_id, lead_id) AS lead, count(*) AS rows
      FROM events WHERE source_topic = $1 GROUP BY 1, 2
"""
_MESSAGE = (
    *("org_unit", "id", "lead_id", "original_lead_id", "event_type", "metadata"),
    *("suppression_reason", "suppressed_by", "created_at", "received_at"),
)


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
    received_at: int
    source_topic: str
    source_partition: int
    source_offset: int
    batch: int
    rules: int
    counted: bool
    exceeded: str | None
    deleted: bool

    @property
    def key(self) -> tuple[str, str]:
        """What names an event."""
        return self.org_unit, self.id

    @property
    def place(self) -> Place:
        """Of the message that committed it."""
        return self.source_topic, self.source_partition, self.source_offset

    @property
    def raw_lead(self) -> str:
        """The lead that the event named."""
        return self.original_lead_id or self.lead_id


class Published(NamedTuple):
    """An enriched message."""

    org_unit: str
    id: str
    lead_id: str
    original_lead_id: str | None
    event_type: str
    metadata: Any
    suppression_reason: str | None
    suppressed_by: Any
    created_at: str
    received_at: str
    record_key: bytes | None
    headers: Sequence[tuple[str, bytes]]

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
    letters: list[Place] = field(default_factory=list)
    """The place of the record that each is about."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    filters: list[Filter] = field(default_factory=list)
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    turns: dict[tuple[str, str], int] = field(default_factory=dict)
    """When merges took effect, by their events: numbers as those of batches."""
    filled: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many rows were there before, by who was named; they are not among the rows here."""
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
        turns = await connection.fetch(TURNS)
        found.turns = {(r["org_unit"], r["message_id"]): r["batch"] for r in turns}
        full = await connection.fetch(FILLED, BEFORE)
        found.filled = {(r["org_unit"], r["lead"]): r["rows"] for r in full}
        found.recount = [str(mismatch) for mismatch in (await recount(connection)).mismatches]
    finally:
        await connection.close()
    messages = await harness.read_topic(world.kafka, world.enriched)
    found.published = [published(m.key, m.value or b"null", m.headers) for m in messages]
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
        return {lane: await _offset(consumer, Partition(*lane)) for lane in lanes}
    finally:
        await consumer.stop()


async def _offset(consumer: Member, partition: Partition) -> int:
    """Once it is settled: that may be left to the lane."""
    while True:
        with suppress(UnstableOffsetError):
            return (await consumer.standing(partition)).offset or 0


def windows(url: str) -> list[Held]:
    """What Redis holds complete, of the generation in force."""
    with redis.Redis.from_url(url) as server:
        held = (_held(server, key, named) for key, named in _names(server))
        return [window for window in held if window is not None]


def watching(url: str) -> set[tuple[str, int]]:
    """The filters that Redis has windows of, by org unit and revision."""
    with redis.Redis.from_url(url) as server:
        return {(named.org_unit, named.revision) for _, named in _names(server)}


def _names(server: Any) -> Iterator[tuple[bytes, "Named"]]:
    """The windows of the generation in force."""
    in_force: dict[str, bytes] = {}
    for key in server.scan_iter(match=f"{LAYOUT}:{{*}}:*"):
        named = window_named(key.decode())
        if named is None:
            continue
        if named.sentinel not in in_force:
            in_force[named.sentinel] = server.hget(named.sentinel, "generation")
        if named.generation == in_force[named.sentinel]:
            yield key, named


class Named(NamedTuple):
    """What the name of a window says."""

    sentinel: str
    generation: bytes
    revision: int
    epoch: int
    org_unit: str
    lead_id: str


def window_named(key: str) -> Named | None:
    """None for the key of exceeding events: no window is called so, since a lead that ends so has a NUL behind it."""
    if key.endswith(EXCEEDING):
        return None
    sentinel, _, rest = key.partition("}:")
    generation, revision, epoch, name = rest.split(":", 3)
    org_unit, _, lead = name.removesuffix("\0").partition("\0")
    return Named(f"{sentinel}}}", generation.encode(), int(revision), int(epoch), org_unit, lead)


def _held(server: Any, key: bytes, named: Named) -> Held | None:
    (marker, floor), *members = server.zrange(key, 0, -1, withscores=True)
    if marker != b"C":
        return None
    exceeding = server.zrange(key + EXCEEDING.encode(), 0, -1, withscores=True)
    return Held(
        named.org_unit,
        named.lead_id,
        named.epoch,
        named.revision,
        int(floor),
        tuple(int(at) for _, at in members),
        tuple(int(at) for _, at in exceeding),
    )


def published(key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Published:
    """What a record of the enriched topic says."""
    event = json.loads(value)
    said = {name: event[name] for name in _MESSAGE}
    return Published(**said, record_key=key, headers=tuple(headers))


def _place(letter: dict[str, Any]) -> Place:
    return letter["topic"], letter["partition"], letter["offset"]
