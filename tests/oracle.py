"""Brute force for S1-S12 and M1-M7: unbounded, obviously right, slow.

Messages are fed in processing order.  Every judgement looks at all earlier rows of the lead's class, so nothing is ever
forgotten, cached or moved.  Imports nothing of the program under test.  Times are milliseconds since 1970 (UTC).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests import oracle_parse
from tests.oracle_filters import Attribute, FilterBook, Velocity, WindowKey
from tests.oracle_leads import Forest, MergeAsked, merge_asked
from tests.oracle_parse import Message, Raw, RefusedError

Reason: TypeAlias = Literal["inorganic", "inorganic_grouped", "metadata_filter"]
Fate: TypeAlias = Literal["stored", "duplicate", "redelivered", "dead", "no_op"]
Order: TypeAlias = Literal["velocity,metadata", "metadata,velocity"]
Bursts: TypeAlias = frozenset[str]
MERGE_STAGES = frozenset({"parse", "validate", "merge"})


@dataclass(frozen=True)
class Opinion:
    """What one velocity filter says of one event."""

    filter: Velocity
    count: int
    exceeds: bool
    inherited: Bursts
    """Every burst the event may join; empty where it is the first of one."""

    @property
    def reason(self) -> Reason | None:
        """The filter's verdict, whatever other filters say."""
        if not self.exceeds:
            return None
        if not self.filter.keep_first:
            return "inorganic"
        return "inorganic_grouped" if self.inherited else None


@dataclass(frozen=True)
class Provenance:
    """``suppressed_by``: ``opinion`` is given for velocity filters."""

    filter: Velocity | Attribute
    opinion: Opinion | None = None


@dataclass
class Row:
    """The first committed row of an id.  ``facts``: window key -> bursts it may belong to, None where it did not exceed."""

    seq: int
    message: Message
    raw: Raw
    lead_id: str
    """The surviving lead when the row was published."""
    together: frozenset[str]
    """All leads that were one with its own then."""
    reason: Reason | None = None
    by: Provenance | None = None
    counted: bool = False
    facts: dict[WindowKey, Bursts | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Dead:
    """A bad message and the stages its one dead letter may name."""

    message: Message
    stages: frozenset[str]
    why: str


def hashed(message: Message) -> str:
    """An id for a message without one; the contract leaves the hash open."""
    return hashlib.sha256(repr(message.place).encode()).hexdigest()[:32]


class Oracle:
    """``book`` may be replaced between any two messages."""

    def __init__(
        self,
        order: Order = "velocity,metadata",
        max_future_ms: int = 3_600_000,
        derive: Callable[[Message], str] = hashed,
    ) -> None:
        self.book = FilterBook()
        self.rows: dict[tuple[str, str], Row] = {}
        self.dead: list[Dead] = []
        self.duplicates: list[Message] = []
        self.leads = Forest()
        self._order, self._max_future_ms, self._derive = order, max_future_ms, derive
        self._by_lead: dict[tuple[str, str], list[Row]] = {}
        self._by_type: dict[tuple[str, str], list[Row]] = {}
        """Those that were counted."""
        self._caught_up: dict[tuple[str, WindowKey], int] = {}
        """How many of a type each filter has judged."""
        self._merges: set[tuple[str, int, int, int | None]] = set()

    def apply(self, document: Mapping[str, Any]) -> None:
        """Change filters as ``filters apply`` does."""
        self.book = self.book.apply(document)

    def feed(self, message: Message) -> Fate:
        """Process one record of the raw topic."""
        try:
            raw = oracle_parse.read(message, self._max_future_ms, self._derive)
        except RefusedError as refused:
            self.dead.append(Dead(message, refused.stages, str(refused)))
            return "dead"
        known = self.rows.get((raw.org_unit, raw.id))
        if known is not None:
            if known.message.place == message.place:
                return "redelivered"
            self.duplicates.append(message)
            return "duplicate"
        self._store(self._judged(self._row(message, raw)))
        return "stored"

    def merge(self, message: Message) -> Fate:
        """Process one record of the merge topic, ``kind`` merge or unmerge."""
        try:
            asked = merge_asked(message)
        except RefusedError as refused:
            self.dead.append(Dead(message, MERGE_STAGES, str(refused)))
            return "dead"
        if message.place in self._merges:
            return "redelivered"
        self._merges.add(message.place)
        done, metadata = self._merged(asked) if asked.kind == "merge" else self._unmerged(asked)
        if not done:
            return "no_op"
        title = "Lead Merged" if asked.kind == "merge" else "Lead Unmerged"
        lead = self.leads.root(asked.org_unit, asked.target)
        at = message.timestamp if message.timestamp is not None else -1
        raw = Raw(asked.org_unit, self._derive(message), lead, title, metadata, at)
        self._store(self._row(message, raw))
        return "stored"

    def original(self, row: Row) -> str | None:
        """The lead the event named, where it now belongs to another."""
        root = self.root(row)
        return row.raw.lead_id if row.raw.lead_id != root else None

    def root(self, row: Row) -> str:
        """The surviving lead of a row, now."""
        return self.leads.root(row.raw.org_unit, row.raw.lead_id)

    def _row(self, message: Message, raw: Raw) -> Row:
        root = self.leads.root(raw.org_unit, raw.lead_id)
        together = frozenset(self.leads.one_with(raw.org_unit, raw.lead_id))
        return Row(len(self.rows), message, raw, root, together)

    def _store(self, row: Row) -> None:
        self.rows[row.raw.org_unit, row.raw.id] = row
        self._by_lead.setdefault((row.raw.org_unit, row.raw.lead_id), []).append(row)
        if row.counted:
            self._by_type.setdefault((row.raw.org_unit, row.raw.event_type), []).append(row)

    def _judged(self, row: Row) -> Row:
        raw = row.raw
        matched = self.book.matching(raw.org_unit, raw.event_type, raw.metadata)
        row.counted = self._order == "velocity,metadata" or matched is None
        opinions: list[Opinion] = []
        if row.counted:
            for watching in self.book.watching(raw.org_unit, raw.event_type):
                self._catch_up(raw.org_unit, watching)
                opinions.append(self._opinion(watching, row))
        row.reason, row.by = verdict(opinions, matched)
        return row

    def _opinion(self, watching: Velocity, row: Row) -> Opinion:
        """What a filter says of a row among those that were stored before it, of the leads that were one with its own then."""
        raw = row.raw
        past = [
            other
            for lead in row.together
            for other in self._by_lead.get((raw.org_unit, lead), [])
            if other.seq < row.seq and other.counted and other.raw.event_type == raw.event_type
        ]
        found = opinion(watching, raw.id, raw.at, past)
        row.facts[watching.window_key] = bursts(found, raw.id)
        return found

    def _catch_up(self, org_unit: str, watching: Velocity) -> None:
        """S10: a filter judges what is older as if it had always been there, in processing order."""
        stored = self._by_type.get((org_unit, watching.event_type), [])
        key = org_unit, watching.window_key
        for row in stored[self._caught_up.get(key, 0) :]:
            if watching.window_key not in row.facts:
                self._opinion(watching, row)
        self._caught_up[key] = len(stored)

    def _merged(self, asked: MergeAsked) -> tuple[bool, dict[str, Any]]:
        root = self.leads.root(asked.org_unit, asked.target)
        joined = [s for s in asked.sources if self.leads.root(asked.org_unit, s) != root]
        classes = {lead for s in joined for lead in self.leads.one_with(asked.org_unit, s)}
        moved = sum(len(self._by_lead.get((asked.org_unit, lead), [])) for lead in classes)
        self.leads.join(asked.org_unit, root, joined)
        return bool(joined), {
            "source_lead_ids": joined,
            "events_moved": moved,
            "requested_by": asked.requested_by,
        }

    def _unmerged(self, asked: MergeAsked) -> tuple[bool, dict[str, Any]]:
        parted = self.leads.part(asked.org_unit, asked.target, asked.sources)
        return bool(parted), {"source_lead_ids": parted}


def opinion(watching: Velocity, id_: str, at: int, past: list[Row]) -> Opinion:
    """S2-S4 for one filter; ``past`` is every member of the window processed before, however far away."""
    width, key = watching.window_ms, watching.window_key
    count = 1 + sum(at - width < row.raw.at <= at for row in past)
    inherited: set[str] = set()
    for row in past:
        if row.raw.id != id_ and abs(row.raw.at - at) < width:
            inherited |= row.facts.get(key) or frozenset()
    return Opinion(watching, count, count > watching.threshold, frozenset(inherited))


def bursts(found: Opinion, id_: str) -> Bursts | None:
    """The bursts an event may carry on: those it may join, or its own; None where it does not exceed."""
    if not found.exceeds:
        return None
    return found.inherited or frozenset({id_})


def verdict(
    opinions: list[Opinion], matched: Attribute | None
) -> tuple[Reason | None, Provenance | None]:
    """S6 and S8; ``opinions`` ascend by filter id."""
    reasons: tuple[Reason, ...] = ("inorganic", "inorganic_grouped")
    for reason in reasons:
        for found in opinions:
            if found.reason == reason:
                return reason, Provenance(found.filter, found)
    if matched is not None:
        return "metadata_filter", Provenance(matched)
    return None, None
