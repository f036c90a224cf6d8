"""What happens to two partitions of events and two of merges: made by a seed, or what is left of that."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from processor.io.kafka import Partition
from processor.outputs import Outputs
from processor.pure.types import FilterOrder
from tests.fakes_rules import Document
from tests.oracle_parse import Message as RawMessage

ORG = "acme"
HOUR = 3_600_000
START = 1_767_268_800_000
"""2026-01-01T12:00:00Z; events happen within a second of it."""
LEADS = (("A", "B", "C"), ("D", "E", "F"))
"""Of each partition; only leads of one partition are merged, so that the order of their events is one."""
OUTPUTS = Outputs("enriched", "dead", lambda _: 1_000_000)


class Sent(NamedTuple):
    """One message, before it has an offset."""

    to: Partition
    stamp: int
    body: dict[str, Any]

    def __str__(self) -> str:
        """As the schedule says it."""
        said = " ".join(f"{key}={value}" for key, value in self.body.items() if key != "org_unit")
        return f"{self.to.topic}/{self.to.partition}: {said}"


@dataclass(frozen=True)
class World:
    """Everything that is given; what is done with it is the schedule."""

    sent: tuple[Sent, ...]
    documents: tuple[Document, ...] = ()
    order: FilterOrder = "velocity,metadata"
    exactly_once: bool = True
    lateness: int = 0
    batch: int = 40
    workers: int = 2

    def logs(self) -> dict[Partition, list[RawMessage]]:
        """The partitions that hold something."""
        return logs(self.sent)


def world(r: random.Random) -> World:
    """What a seed gives."""
    order: FilterOrder = r.choice(("velocity,metadata", "metadata,velocity"))
    sent = [*events(r, size=r.choice((15, 30, 60)))]
    if r.random() < 0.5:
        sent += merges(r)
    return World(
        sent=tuple(sent),
        documents=tuple(documents(r)),
        order=order,
        exactly_once=r.random() < 0.8,
        lateness=r.choice((0, 10, 60, 200)),
        batch=r.choice((5, 40, 40)),
    )


def logs(sent: Iterable[Sent]) -> dict[Partition, list[RawMessage]]:
    """Messages as their partitions hold them."""
    found: dict[Partition, list[RawMessage]] = {}
    for message in sent:
        topic, partition = message.to
        log, value = found.setdefault(message.to, []), orjson.dumps(message.body)
        log.append(RawMessage(topic, partition, len(log), message.stamp, None, value))
    return found


def documents(r: random.Random) -> list[Document]:
    """Two velocity filters on page views and perhaps an attribute filter."""
    found: list[Document] = [
        {
            "id": f"v{n}",
            "name": f"V{n}",
            "event_type": "page_view",
            "threshold": r.choice((0, 1, 2, 5)),
            "window_ms": r.choice((5, 20, 50)),
            "keep_first": r.random() < 0.5,
            "enabled": r.random() < 0.9,
        }
        for n in range(2)
    ]
    if r.random() < 0.5:
        conditions = [{"key": "bot", "operator": "exists"}]
        found.append({"id": "m", "name": "Bots", "conditions": conditions})
    return found


def messages(
    r: random.Random, start: int = START, size: int = 60
) -> tuple[Sequence[RawMessage], ...]:
    """Two partitions of late, early and duplicate events; a duplicate may have another body, or another partition."""
    found = logs(events(r, start, size))
    return tuple(found.get(Partition("raw", n), []) for n in range(2))


def events(r: random.Random, start: int = START, size: int = 60) -> Sequence[Sent]:
    """As they are sent; the stamp is later than all of them."""
    now = start + 1_000
    bodies: list[tuple[int, dict[str, Any]]] = []
    for n in range(size):
        now += r.choice((0, 0, 1, 1, 2, 3, r.randrange(60)))
        partition = r.randrange(2)
        body = {"id": f"e{n}", "lead_id": _lead(r, partition), "at": now + _shift(r)}
        body["metadata"] = {"bot": 1} if r.random() < 0.1 else {}
        bodies.append((partition, body))
        if r.random() < 0.08:
            bodies.append(r.choice(bodies))
        if r.random() < 0.05:
            other = r.randrange(2)
            changed = {"lead_id": _lead(r, other), "at": now - r.randrange(50)}
            bodies.append((other, {**r.choice(bodies)[1], **changed}))
    return [Sent(Partition("raw", n), now + r.randrange(1_000), _body(body)) for n, body in bodies]


def merges(r: random.Random) -> Sequence[Sent]:
    """Merges and unmerges of the leads of one partition each, to whichever partition of their own topic."""
    found = []
    for _ in range(r.randrange(2, 9)):
        target, *sources = r.sample(r.choice(LEADS), r.choice((2, 2, 3)))
        body = {"org_unit": ORG, "target_lead_id": target, "source_lead_ids": sources}
        body["kind"] = r.choice(("merge", "merge", "merge", "unmerge"))
        found.append(Sent(Partition("merges", r.randrange(2)), START, body))
    return found


def _lead(r: random.Random, partition: int) -> str:
    return r.choices(LEADS[partition], (5, 2, 1))[0]


def _shift(r: random.Random) -> int:
    late = r.randrange(250) if r.random() < 0.25 else 0
    early = r.randrange(150) if r.random() < 0.05 else 0
    return early - late


def _body(body: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromtimestamp(body["at"] // 1000, UTC).replace(
        microsecond=body["at"] % 1000 * 1000
    )
    return {
        "id": body["id"],
        "org_unit": ORG,
        "lead_id": body["lead_id"],
        "event_type": "page_view",
        "metadata": body["metadata"],
        "timestamp": at.isoformat(timespec="milliseconds"),
    }
