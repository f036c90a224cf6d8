"""A seeded adversarial stream: everything the semantics must survive, dense enough that each rule decides verdicts.

Deterministic from its ``Shape``.  A stream has two halves; all of the first is settled before the second begins, which alone
holds duplicates that arrive on another partition than their original, so every verdict is determined.  Times are ms.
"""

import itertools
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.oracle_compare import rfc3339
from tests.oracle_parse import Message
from tests.traffic_bad import BAD, ODD_BUT_GOOD, dumps
from tests.traffic_filters import FIRST, LATER, TEMPTING
from tests.traffic_scenes import KINDS, Planned, World, scene, who

SPELLINGS = {
    "page view": ("page_view", "Page View", "PAGE-VIEW", " page__ view-", "page\tVIEW"),
    "email open": ("email_open", "Email-Open", "EMAIL OPEN"),
    "qa ping": ("qa_ping", "Qa Ping"),
    "click": ("click", "CLICK"),
    "form submit": ("form_submit",),
    "other": ("other", "pageView"),
}


class Record(NamedTuple):
    """A record to produce."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Shape:
    """What a stream depends on; lateness and future as the worker is set."""

    seed: int
    start_ms: int
    count: int = 5_000
    partitions: int = 4
    lateness_ms: int = 3_600_000
    max_future_ms: int = 3_600_000


@dataclass(frozen=True)
class Stream:
    """Two halves of records, and filters for each."""

    halves: tuple[Sequence[Record], Sequence[Record]]
    filters: tuple[dict[str, Any], dict[str, Any]] = (FIRST, LATER)


@dataclass
class _Sent:
    """What duplicates are made of."""

    record: Record
    event: dict[str, Any]


@dataclass
class _Maker:
    partitions: int
    world: World
    number: int = 0
    taken: set[tuple[str, str]] = field(default_factory=set)
    sent: list[_Sent] = field(default_factory=list)
    bad: Iterator[str] = field(default_factory=lambda: itertools.cycle(BAD))
    odd: Iterator[str] = field(default_factory=lambda: itertools.cycle(ODD_BUT_GOOD))


def stream(shape: Shape) -> Stream:
    """The stream of a shape."""
    r = random.Random(shape.seed)
    world = World(r, shape.start_ms, shape.start_ms, shape.lateness_ms, shape.max_future_ms)
    maker = _Maker(shape.partitions, world)
    middle = shape.count // 2
    first = _half(maker, middle)
    settled = list(maker.sent)
    elsewhere = shape.count // 60 if settled else 0
    second = _half(maker, shape.count - middle - elsewhere)
    for _ in range(elsewhere):
        place = maker.world.r.randrange(len(second))
        again = _elsewhere(maker, maker.world.r.choice(settled), second[place].timestamp)
        second.insert(place, again)
    return Stream((first, second))


def as_messages(records: Sequence[Record], topic: str, start: Sequence[int]) -> list[Message]:
    """The records as a topic gives them whose partitions begin at the offsets ``start``."""
    offsets = list(start)
    found: list[Message] = []
    for record in records:
        found.append(Message(topic, record.partition, offsets[record.partition], *record[1:]))
        offsets[record.partition] += 1
    return found


def home(lead_id: str, partitions: int) -> int:
    """The partition of a lead, the same in every org unit."""
    return zlib.crc32(lead_id.encode("utf-8", "surrogatepass")) % partitions


def _half(maker: _Maker, count: int) -> list[Record]:
    scenes = [scene(maker.world) for _ in range(8)]
    records: list[Record] = []
    while len(records) < count:
        maker.world.now += maker.world.r.choice((0, 0, 1, 3, maker.world.r.randrange(120)))
        records.append(_next(maker, scenes))
    return records


def _next(maker: _Maker, scenes: list[Iterator[Planned]]) -> Record:
    chance = maker.world.r.random()
    if maker.sent and chance < 0.05:
        return _again(maker, maker.world.r.choice(maker.sent[-300:]))
    if maker.sent and chance < 0.08:
        return _other_body(maker, maker.world.r.choice(maker.sent[-300:]))
    place = maker.world.r.randrange(len(scenes))
    planned = next(scenes[place], None)
    while planned is None:
        scenes[place] = scene(maker.world)
        planned = next(scenes[place], None)
    if chance < 0.12:
        return _bad(maker, planned)
    if chance < 0.14:
        return _odd(maker, planned)
    return _good(maker, planned)


def _event(maker: _Maker, planned: Planned) -> dict[str, Any]:
    maker.number += 1
    event = {
        "org_unit": planned.org_unit,
        "lead_id": planned.lead_id,
        "event_type": maker.world.r.choice(SPELLINGS[planned.event_type]),
        "metadata": _tempting(maker),
    }
    chance = maker.world.r.random()
    if chance > 0.06:
        event["id"] = _id(maker, planned.org_unit)
    if planned.at != maker.world.now or chance < 0.5:
        event |= _time(maker, planned.at)
    if chance < 0.01:
        event["timestamp"] = rfc3339(maker.world.now + maker.world.max_future_ms)
    return event


def _id(maker: _Maker, org_unit: str) -> str:
    """A new id; often one that stands in another org unit already."""
    shared = f"é{maker.world.r.randrange(maker.number)}", f"é{maker.number}"
    id_ = shared[(org_unit, shared[0]) in maker.taken or org_unit == "acme"]
    maker.taken.add((org_unit, id_))
    return id_


def _time(maker: _Maker, at: int) -> dict[str, Any]:
    text = rfc3339(at)
    local = rfc3339(at + 19_800_000).replace("Z", "+05:30")
    return maker.world.r.choice(
        (
            {"timestamp": text},
            {"timestamp": text.replace("Z", "999999Z"), "created_at": rfc3339(0)},
            {"created_at": text},
            {"timestamp": None, "created_at": local},
            {"timestamp": local},
        )
    )


def _tempting(maker: _Maker) -> dict[str, Any]:
    if maker.world.r.random() < 0.7:
        return {"page": f"/{maker.world.r.randrange(50)}", "n": maker.world.r.random()}
    keys = maker.world.r.sample(list(TEMPTING), maker.world.r.choice((1, 1, 1, 2)))
    return {key: maker.world.r.choice(TEMPTING[key]) for key in keys}


def _good(maker: _Maker, planned: Planned) -> Record:
    event = _event(maker, planned)
    record = _record(maker, planned.lead_id, dumps(event))
    maker.sent.append(_Sent(record, event))
    return record


def _record(maker: _Maker, lead_id: str, value: bytes | None) -> Record:
    key = lead_id.encode()
    headers = (("trace", b"\xff"),) if maker.world.r.random() < 0.1 else ()
    return Record(home(lead_id, maker.partitions), maker.world.now, key, value, headers)


def _bad(maker: _Maker, planned: Planned) -> Record:
    event = _event(maker, planned)
    if maker.world.r.random() < 0.1:
        future = rfc3339(maker.world.now + maker.world.max_future_ms + 1)
        return _record(maker, planned.lead_id, dumps(event | {"timestamp": future}))
    return _record(maker, planned.lead_id, BAD[next(maker.bad)](event))


def _odd(maker: _Maker, planned: Planned) -> Record:
    value = ODD_BUT_GOOD[next(maker.odd)](_event(maker, planned))
    # A lead that only the value names stays on one partition all the same.
    return _record(maker, json.loads(value or b"")["lead_id"], value)


def _again(maker: _Maker, old: _Sent) -> Record:
    """The same body once more: a duplicate where it has an id, another event where it has none."""
    return old.record._replace(timestamp=maker.world.now)


def _other_body(maker: _Maker, old: _Sent) -> Record:
    """A known id with another body, right behind its original's partition."""
    changed = _event(
        maker, Planned(*who(maker.world), maker.world.r.choice(KINDS), maker.world.now)
    )
    known = {name: old.event[name] for name in ("org_unit", "id") if name in old.event}
    if "id" not in known:
        return _again(maker, old)
    return old.record._replace(timestamp=maker.world.now, value=dumps(old.event | changed | known))


def _elsewhere(maker: _Maker, old: _Sent, timestamp: int) -> Record:
    """A duplicate of a settled event on any partition, by another key."""
    if "id" not in old.event:
        return _again(maker, old)._replace(timestamp=timestamp)
    partition = maker.world.r.randrange(maker.partitions)
    changed: dict[str, Any] = {} if maker.world.r.random() < 0.5 else {"metadata": {"other": True}}
    value = dumps(old.event | changed)
    return Record(partition, timestamp, b"elsewhere", value, ())
