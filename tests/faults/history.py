"""What was produced while faults struck: a seeded load, and the record of all that Kafka acknowledged.

Deterministic from its seed but for the clock: events occur around now, since topics forget records of long ago.  Times are ms.
"""

import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from tests import oracle_parse
from tests.oracle_compare import rfc3339
from tests.oracle_parse import Message
from tests.traffic import Record, home

ORG_UNITS = ("acme", "globex")
LEADS = 60
"""Of each org unit."""
TYPES = ("page_view", "email_open", "form_submit")
EVENT_TIME_MS = 12
"""From one event to the next, on average: some filters trip, most leads are calm."""
FILTERS: dict[str, Any] = {
    "org_units": {
        org_unit: {
            "velocity_filters": [
                {
                    "id": "vf-bursts",
                    "name": "Bursts",
                    "event_type": "page_view",
                    "threshold": 3,
                    "window_ms": 2_000,
                    "keep_first": True,
                },
                {
                    "id": "vf-opens",
                    "name": "Scanners",
                    "event_type": "email_open",
                    "threshold": 5,
                    "window_ms": 20_000,
                },
            ],
            "metadata_filters": [
                {
                    "id": "mf-bots",
                    "name": "Bots",
                    "conditions": [{"key": "ua", "operator": "contains", "value": "bot"}],
                }
            ],
        }
        for org_unit in ORG_UNITS
    }
}
MAX_FUTURE_MS = 3_600_000
BAD = (b"{", None, b"[]", b'{"org_unit":"acme"}', b"\xff", b'{"org_unit":"acme","lead_id":""}')

Place: TypeAlias = tuple[str, int, int]
"""Topic, partition and offset."""
Spoil: TypeAlias = Callable[[dict[str, Any]], bytes | None]
"""Makes another message of an event."""


class Asked(NamedTuple):
    """The event that a good raw record asks for; `id` is None where Kafka's place names it."""

    org_unit: str
    id: str | None
    lead_id: str
    event_type: str
    """As it is stored."""
    at: int
    metadata: str
    """JSON."""


class Merge(NamedTuple):
    """The merge that a record of the merge topic asks for."""

    org_unit: str
    target: str
    sources: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Sent:
    """An acknowledged record, and what it asks for; None: nothing good."""

    topic: str
    partition: int
    offset: int
    asks: Asked | Merge | None
    timestamp: int

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.topic, self.partition, self.offset


@dataclass
class History:
    """Everything that was done to the system, as far as the outside world knows."""

    sent: list[Sent] = field(default_factory=list)
    deleted: set[tuple[str, str]] = field(default_factory=set)
    """Events whose deletion was acknowledged."""

    def ends(self) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each partition."""
        found: dict[tuple[str, int], int] = {}
        for sent in self.sent:
            lane = sent.topic, sent.partition
            found[lane] = max(found.get(lane, 0), sent.offset + 1)
        return found

    def bad(self) -> list[Sent]:
        """Records of the raw topic that ask for nothing good."""
        return [sent for sent in self.sent if sent.asks is None]

    def forget(self, topic: str, partition: int, first: int, upto: int) -> int:
        """Of records that were deleted before anybody read them nothing is expected; how many they were."""
        gone = [
            s for s in self.sent if s.place[:2] == (topic, partition) and first <= s.offset < upto
        ]
        self.sent = [sent for sent in self.sent if sent not in gone]
        return len(gone)

    def merging(self) -> list[tuple[Sent, Merge]]:
        """Merges in the order in which they take effect: they stand on one partition."""
        found = [(sent, sent.asks) for sent in self.sent if isinstance(sent.asks, Merge)]
        assert len({sent.partition for sent, _ in found}) <= 1, "merges whose order nobody knows"
        return sorted(found, key=lambda one: one[0].offset)

    def merges(self) -> list[Merge]:
        """In the order in which they take effect."""
        return [merge for _, merge in self.merging()]


def asked(record: Record) -> Asked:
    """What a good raw record asks for, as the contract reads it."""
    message = Message("", record.partition, 0, record.timestamp, record.key, record.value)
    raw = oracle_parse.read(message, MAX_FUTURE_MS, lambda _: "")
    metadata = json.dumps(raw.metadata)
    return Asked(raw.org_unit, raw.id or None, raw.lead_id, raw.event_type, raw.at, metadata)


def _always(value: bytes | None) -> Spoil:
    return lambda _: value


@dataclass(frozen=True)
class Mix:
    """How much of what a load holds, as shares of one."""

    bad: float = 0.01
    again: float = 0.02
    """Duplicates; half of them ask for something else."""
    odd: float = 0.0
    """Good messages that only look bad."""
    late: float = 0.05
    late_ms: int = 30_000
    """At most."""
    ancient: float = 0.0
    """Two hours late, among their like."""
    step_ms: int = EVENT_TIME_MS
    """From one event to the next, on average."""
    bad_kinds: Sequence[Spoil] = tuple(map(_always, BAD))
    odd_kinds: Sequence[Spoil] = ()


MIX = Mix()
ANCIENT_MS = 7_200_000


class Load:
    """An endless stream of raw events: bursts, late and early ones, duplicates with the same and with another body, bad messages."""

    def __init__(self, seed: int, partitions: int, leads: int = LEADS, mix: Mix = MIX) -> None:
        self._random = random.Random(seed)
        self._partitions = partitions
        self._leads = leads
        self._mix = mix
        self._bad = itertools.cycle(mix.bad_kinds)
        self._number = 0
        self._sent: list[tuple[Record, dict[str, Any]]] = []
        self._burst: list[str] = []
        self.now = time.time_ns() // 1_000_000 - 600_000
        """When the next events occur, nearly."""

    def take(self, count: int) -> list[tuple[Record, Asked | None]]:
        """The next so many records, each with what it asks for."""
        return [self._next() for _ in range(count)]

    def _next(self) -> tuple[Record, Asked | None]:
        r = self._random
        self.now += r.randrange(2 * self._mix.step_ms)
        chance, mix = r.random(), self._mix
        if chance < mix.bad:
            value = next(self._bad)(self._event())
            return Record(r.randrange(self._partitions), _stamp(), b"bad", value), None
        if chance < mix.bad + mix.again and self._sent:
            return self._again(*r.choice(self._sent[-200:]))
        if chance > 1 - mix.odd:
            return self._odd(r.choice(mix.odd_kinds)(self._event()) or b"")
        return self._made(self._event())

    def _event(self) -> dict[str, Any]:
        r = self._random
        self._number += 1
        event: dict[str, Any] = {
            "id": f"e{self._number}",
            "org_unit": r.choice(ORG_UNITS),
            "lead_id": self._lead(),
            "event_type": r.choices(TYPES, (6, 3, 1))[0],
            "timestamp": rfc3339(self.now + self._shift()),
            "metadata": {"ua": r.choices(("firefox", "a bot"), (19, 1))[0], "n": self._number},
        }
        if r.random() < 0.02:
            del event["id"]
        return event

    def _lead(self) -> str:
        """Mostly anyone; now and then one lead many times in a row."""
        r = self._random
        if not self._burst and r.random() < 0.02:
            self._burst = [f"ld-{r.randrange(self._leads)}"] * r.randrange(4, 12)
        return self._burst.pop() if self._burst else f"ld-{r.randrange(self._leads)}"

    def _shift(self) -> int:
        r, mix = self._random, self._mix
        late = r.randrange(mix.late_ms) if r.random() < mix.late else 0
        if r.random() < mix.ancient:
            return -ANCIENT_MS - late
        return r.randrange(1_000) if r.random() < 0.02 else -late

    def _made(self, event: dict[str, Any]) -> tuple[Record, Asked]:
        lead = event["lead_id"]
        value = json.dumps(event).encode()
        record = Record(home(lead, self._partitions), _stamp(), lead.encode(), value)
        self._sent.append((record, event))
        del self._sent[:-200]
        return record, asked(record)

    def _odd(self, value: bytes) -> tuple[Record, Asked]:
        """A lead that only the value names stays on one partition all the same."""
        lead = json.loads(value)["lead_id"]
        record = Record(home(lead, self._partitions), _stamp(), b"odd", value)
        return record, asked(record)

    def _again(self, record: Record, event: dict[str, Any]) -> tuple[Record, Asked]:
        """A duplicate, on the partition of its original; half of them ask for something else."""
        if self._random.random() < 0.5:
            other = {"event_type": "page_view", "timestamp": rfc3339(self.now - 700)}
            record = record._replace(value=json.dumps({**event, **other}).encode())
        record = record._replace(timestamp=_stamp())
        return record, asked(record)


def _stamp() -> int:
    return time.time_ns() // 1_000_000
