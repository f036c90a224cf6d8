"""The traffic of `make bench` with one thing changed, and by brute force what has to become of it."""

import json
import random
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from processor.bench.traffic import CONDITIONS, ORG_UNITS, VELOCITY, Sent, traffic

HOT = 0
"""The lead that a share of the traffic is of."""


class Velocity(NamedTuple):
    """A velocity filter."""

    event_type: str
    threshold: int
    window_ms: int


class Attribute(NamedTuple):
    """A metadata filter, of every type where it names none."""

    key: str
    operator: str
    value: str
    event_type: str = ""


@dataclass(frozen=True)
class Shape:
    """What traffic and filters are like; as in `make bench` where nothing else is said."""

    org_units: int = ORG_UNITS
    hot: float = 0.0
    """The share of events that are of one lead."""
    velocity: Sequence[Velocity] = tuple(Velocity(one, *VELOCITY[one]) for one in VELOCITY)
    attributes: Sequence[Attribute] = tuple(Attribute(*one) for one in CONDITIONS)

    def filters(self) -> dict[str, object]:
        """Of every org unit, as `filters apply` takes them."""
        both = {
            "velocity_filters": [
                {"id": f"vf-{n:04}", "name": f"Velocity {n}", **one._asdict()}
                for n, one in enumerate(self.velocity)
            ],
            "metadata_filters": [_attribute(n, one) for n, one in enumerate(self.attributes)],
        }
        return {"org_units": {f"ou-{n}": both for n in range(self.org_units)}}


class Before(NamedTuple):
    """An event that is stored before the traffic."""

    lead_id: str
    event_type: str
    at: int


def shaped(
    shape: Shape, events: int, start_ms: int, seed: int, before: Iterable[Before] = ()
) -> Sequence[Sent]:
    """So many messages; what came twice does so here.  What was `before` counts, as far as windows reach."""
    shaping = _Shaping(shape, random.Random(seed))
    for lead_id, event_type, at in before:
        insort(shaping.past.setdefault((lead_id, event_type), []), at)
    return [shaping.of(one) for one in traffic(events, start_ms, seed)]


@dataclass
class _Shaping:
    shape: Shape
    chance: random.Random
    made: dict[str, Sent] = field(default_factory=dict)
    past: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Times of events so far, ascending, by lead and type."""

    def of(self, one: Sent) -> Sent:
        if one.id not in self.made:
            self.made[one.id] = self._new(one)
        return self.made[one.id]

    def _new(self, one: Sent) -> Sent:
        event = json.loads(one.value)
        hot = self.chance.random() < self.shape.hot
        number = HOT if hot else int(event["lead_id"].removeprefix("ld_"))
        event |= {"lead_id": f"ld_{number}", "org_unit": f"ou-{number % self.shape.org_units}"}
        at = round(datetime.fromisoformat(event["created_at"]).timestamp() * 1000)
        reason = self._velocity(event, at) or self._attribute(event)
        value = json.dumps(event, separators=(",", ":")).encode()
        return Sent(event["lead_id"].encode(), value, one.id, reason)

    def _velocity(self, event: Mapping[str, str], at: int) -> str | None:
        times = self.past.setdefault((event["lead_id"], event["event_type"]), [])
        insort(times, at)
        until = bisect_right(times, at)
        for event_type, threshold, window_ms in self.shape.velocity:
            if event_type != event["event_type"]:
                continue
            if until - bisect_right(times, at - window_ms) > threshold:
                return "inorganic"
        return None

    def _attribute(self, event: Mapping[str, object]) -> str | None:
        metadata = event["metadata"]
        assert isinstance(metadata, dict)
        for key, operator, value, event_type in self.shape.attributes:
            if event_type in ("", event["event_type"]) and _holds(metadata[key], operator, value):
                return "metadata_filter"
        return None


def _holds(found: str, operator: str, value: str) -> bool:
    match operator:
        case "contains":
            return value.lower() in found.lower()
        case "starts_with":
            return found.lower().startswith(value.lower())
        case _:
            return found.lower() == value.lower()


def _attribute(n: int, one: Attribute) -> dict[str, object]:
    condition = {"key": one.key, "operator": one.operator, "value": one.value}
    return {
        "id": f"mf-{n:04}",
        "name": f"Metadata {n}",
        "event_type": one.event_type,
        "conditions": [condition],
    }
