"""A small processor to test the checks with: batches, crashes and redelivery, right unless a fault is named.

It shares with the oracle how a message is read and which attribute filter matches, and nothing of how a verdict is found.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from tests import oracle_parse
from tests.oracle import hashed
from tests.oracle_filters import Attribute, FilterBook, Velocity
from tests.oracle_parse import Message, Raw, RefusedError

Fault: TypeAlias = Literal[
    "at least the threshold",
    "closed left edge",
    "burst state per batch",
    "no deduplication",
    "facts before the commit",
]
FAULTS: tuple[Fault, ...] = (
    "at least the threshold",
    "closed left edge",
    "burst state per batch",
    "no deduplication",
    "facts before the commit",
)
Window: TypeAlias = tuple[str, str, str]
Facts: TypeAlias = dict[str, str]


@dataclass
class Windows:
    """Members of each window, and per filter those that exceeded it: id -> time, id -> (time, burst)."""

    members: dict[Window, dict[str, int]] = field(default_factory=dict)
    exceeded: dict[tuple[Window, str], dict[str, tuple[int, str]]] = field(default_factory=dict)

    def add(self, raw: Raw, facts: Facts) -> None:
        """What an event did: harmless however often."""
        window = raw.org_unit, raw.lead_id, raw.event_type
        self.members.setdefault(window, {})[raw.id] = raw.at
        for filter_id, burst in facts.items():
            self.exceeded.setdefault((window, filter_id), {})[raw.id] = raw.at, burst

    def copy(self) -> "Windows":
        """Another one to try a batch on."""
        return Windows(
            {k: dict(v) for k, v in self.members.items()},
            {k: dict(v) for k, v in self.exceeded.items()},
        )


@dataclass
class Model:
    """``rows`` are what it stored, with the columns of ``events``."""

    book: FilterBook
    order: str
    fault: Fault | None
    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    windows: Windows = field(default_factory=Windows)

    def run(self, messages: Sequence[Message], seed: int) -> list[dict[str, Any]]:
        """Process messages (one partition, in order) in batches of any size, some of them more than once."""
        r, at = random.Random(seed), 0
        while at < len(messages):
            batch = messages[at : at + r.choice((1, 4, 25, 60))]
            if self._process(batch, crash=r.random() < 0.15):
                at += len(batch)
        return list(self.rows.values())

    def _process(self, batch: Sequence[Message], *, crash: bool) -> bool:
        ruled = self._decide(batch)
        if self.fault == "facts before the commit":
            self._write(ruled)
        if crash:
            return False
        number = len(self.rows) + 1
        for raw, row, _ in ruled:
            self.rows.setdefault((raw.org_unit, raw.id), row | {"batch": number})
        self._write(ruled)
        return True

    def _write(self, ruled: list[tuple[Raw, dict[str, Any], Facts]]) -> None:
        for raw, row, facts in ruled:
            if row["counted"]:
                self.windows.add(raw, facts)

    def _decide(self, batch: Sequence[Message]) -> list[tuple[Raw, dict[str, Any], Facts]]:
        seen, ruled = self.windows.copy(), []
        if self.fault == "burst state per batch":
            seen.exceeded.clear()
        taken = set(self.rows)
        for message in batch:
            try:
                raw = oracle_parse.read(message, 3_600_000, hashed)
            except RefusedError:
                continue
            if (raw.org_unit, raw.id) in taken:
                if self.fault == "no deduplication":
                    seen.add(_renamed(raw, message), {})
                    self.windows.add(_renamed(raw, message), {})
                continue
            taken.add((raw.org_unit, raw.id))
            row, facts = self._judge(raw, seen)
            place = {"source_partition": message.partition, "source_offset": message.offset}
            if row["counted"]:
                seen.add(raw, facts)
            ruled.append((raw, row | place, facts))
        return ruled

    def _judge(self, raw: Raw, seen: Windows) -> tuple[dict[str, Any], Facts]:
        matched = self.book.matching(raw.org_unit, raw.event_type, raw.metadata)
        counted = matched is None or self.order == "velocity,metadata"
        facts: Facts = {}
        verdicts: list[tuple[str, str, dict[str, Any]]] = []
        for f in self.book.watching(raw.org_unit, raw.event_type) if counted else ():
            verdict = self._opinion(f, raw, seen, facts)
            verdicts += [verdict] if verdict else []
        if matched is not None:
            verdicts.append(("metadata_filter", matched.id, _named(matched)))
        reasons = ("inorganic", "inorganic_grouped", "metadata_filter")
        verdicts.sort(key=lambda v: (reasons.index(v[0]), v[1].encode()))
        reason, _, by = verdicts[0] if verdicts else (None, "", None)
        return _row(raw, reason, by) | {"counted": counted}, facts

    def _opinion(
        self, f: Velocity, raw: Raw, seen: Windows, facts: Facts
    ) -> tuple[str, str, dict[str, Any]] | None:
        window = raw.org_unit, raw.lead_id, raw.event_type
        members = seen.members.get(window, {}) | {raw.id: raw.at}
        after = raw.at - f.window_ms - (self.fault == "closed left edge")
        count = sum(after < t <= raw.at for t in members.values())
        if count < f.threshold + (self.fault != "at least the threshold"):
            return None
        by = _named(f) | {"count": count, "threshold": f.threshold, "window_ms": f.window_ms}
        if not f.keep_first:
            return "inorganic", f.id, by
        others = seen.exceeded.get((window, f.id), {})
        near = [b for i, (t, b) in others.items() if i != raw.id and abs(t - raw.at) < f.window_ms]
        facts[f.id] = near[0] if near else raw.id
        return ("inorganic_grouped", f.id, by | {"burst_id": near[0]}) if near else None


def _renamed(raw: Raw, message: Message) -> Raw:
    """The same event as another member."""
    fields = raw.__dict__ | {"id": f"{raw.id} at {message.offset}"}
    return Raw(**fields)


def _named(f: Velocity | Attribute) -> dict[str, Any]:
    return {"filter_id": f.id, "filter_version": f.version, "filter_name": f.name}


def _row(raw: Raw, reason: str | None, by: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "org_unit": raw.org_unit,
        "id": raw.id,
        "lead_id": raw.lead_id,
        "original_lead_id": None,
        "event_type": raw.event_type,
        "metadata": raw.metadata,
        "suppression_reason": reason,
        "suppressed_by": by,
        "occurred_at": raw.at,
        "rules": 2,
    }
