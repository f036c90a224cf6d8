"""Traffic as it comes in real life: people, machines that pretend to be people, and what goes wrong on the way.

An endless generator: whoever pulls sets the rate.  Visits that are due go on, else somebody new comes; so bursts keep their
pace at any rate.  The same seed and clock readings give the same traffic.  Times are milliseconds since 1970 (UTC).
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

import orjson

from processor.demo.traffic_visits import Act, Visitor, visit

Kind: TypeAlias = Literal["event", "duplicate", "bad", "merge"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
MERGE_EVERY_MS = 3_000
MERGE_SOURCES = (1, 1, 1, 2, 3)
DUPLICATES, OTHER_BODIES, BAD = 0.01, 0.002, 0.002
REMEMBERED = 500
"""Recent messages that may come again, and recent leads that may be merged."""


class Sample(NamedTuple):
    """A record to produce; ``topic`` says which of the two inputs, ``timestamp`` is the record's."""

    topic: Literal["raw", "merges"]
    key: bytes
    value: bytes | None
    timestamp: int
    kind: Kind


class _Sent(NamedTuple):
    sample: Sample
    fields: dict[str, Any]


@dataclass
class _Traffic:
    r: random.Random
    max_future_ms: int
    due: list[tuple[int, int, Iterator[Act], Act]] = field(default_factory=list)
    sent: deque[_Sent] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    leads: deque[Visitor] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    number: int = 0
    merge_at: int = 0


def traffic(seed: int, clock: Callable[[], int], max_future_ms: int) -> Iterator[Sample]:
    """Samples for ever; ``clock`` gives the time, ms.  Event times are the clock's, or earlier where a phone was offline.

    A bad one may be later than the processor allows, which is ``max_future_ms``.
    """
    state = _Traffic(random.Random(seed), max_future_ms)  # noqa: S311 (nothing is secret here)
    state.merge_at = clock() + MERGE_EVERY_MS
    while True:
        yield _next(state, clock())


def _next(state: _Traffic, now: int) -> Sample:
    if now >= state.merge_at and len(state.leads) > max(MERGE_SOURCES):
        state.merge_at = now + MERGE_EVERY_MS
        return _merge(state, now)
    chance = state.r.random()
    if state.sent and chance < DUPLICATES:
        return state.r.choice(state.sent).sample._replace(timestamp=now, kind="duplicate")
    if state.sent and chance < DUPLICATES + OTHER_BODIES:
        return _other_body(state.r.choice(state.sent), now)
    if chance < DUPLICATES + OTHER_BODIES + BAD:
        return _bad(state, now)
    return _sample(state, _act(state, now), now)


def _act(state: _Traffic, now: int) -> Act:
    """The next act of a visit that is due, or the first of a new one."""
    state.number += 1
    if state.due and state.due[0][0] <= now:
        _, _, going_on, act = heapq.heappop(state.due)
    else:
        going_on = visit(state.r, state.number)
        act = next(going_on)
        act = act._replace(at=now + act.at)
        state.leads.append(act.visitor)
    following = next(going_on, None)
    if following is not None:
        # Acts say when they happen relative to the visit's last one.
        at = act.at + following.at
        sent = max(at, now) if following.sent_after is None else now + following.sent_after
        entry = following._replace(at=at)
        heapq.heappush(state.due, (sent, state.number, going_on, entry))
    return act


def _sample(state: _Traffic, act: Act, now: int) -> Sample:
    fields: dict[str, Any] = {
        "org_unit": act.visitor.org_unit,
        "lead_id": act.visitor.lead_id,
        "event_type": act.event_type,
        "timestamp": _rfc3339(min(act.at, now)),
        "metadata": act.metadata,
    }
    if act.has_id:
        fields["id"] = f"{state.r.getrandbits(64):016x}"
    key = act.visitor.lead_id.encode()
    sample = Sample("raw", key, orjson.dumps(fields), now, "event")
    if act.has_id:
        state.sent.append(_Sent(sample, fields))
    return sample


def _other_body(old: _Sent, now: int) -> Sample:
    """A known id with other metadata: a retry after the producer's code changed."""
    changed = old.fields | {"metadata": {**old.fields["metadata"], "retry": True}}
    return Sample("raw", old.sample.key, orjson.dumps(changed), now, "duplicate")


def _bad(state: _Traffic, now: int) -> Sample:
    lead = f"broken-{state.r.randrange(100)}"
    good = {"org_unit": "acme", "lead_id": lead, "event_type": "page_view"}
    late = _rfc3339(now + state.max_future_ms + HOUR_MS)
    value = state.r.choice(
        (
            None,
            orjson.dumps(good)[:-7],
            orjson.dumps(good | {"lead_id": None}),
            orjson.dumps(good | {"event_type": " _ "}),
            orjson.dumps(good | {"timestamp": "yesterday"}),
            orjson.dumps(good | {"timestamp": late}),
            orjson.dumps(good | {"metadata": ["not", "an", "object"]}),
            orjson.dumps(good | {"metadata": {"body": "x" * 103_000}}),
            orjson.dumps(good | {"metadata": {"name": "a\x00b"}}),
        )
    )
    return Sample("raw", lead.encode(), value, now, "bad")


def _merge(state: _Traffic, now: int) -> Sample:
    target = state.r.choice(state.leads)
    others = [v.lead_id for v in state.leads if v.org_unit == target.org_unit]
    sources = state.r.sample(others, min(len(others), state.r.choice(MERGE_SOURCES)))
    asked = {
        "org_unit": target.org_unit,
        "target_lead_id": target.lead_id,
        "source_lead_ids": sources,
        "requested_by": "crm-sync",
    }
    return Sample("merges", target.org_unit.encode(), orjson.dumps(asked), now, "merge")


def _rfc3339(at: int) -> str:
    moment = (EPOCH + timedelta(milliseconds=at)).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
