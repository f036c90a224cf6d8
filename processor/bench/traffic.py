"""The traffic of a measurement, the same bytes for the same number of events, and by brute force what has to become of it.

Some 300 bytes an event; 200,000 leads, the first of which are busy; 5 % in bursts, 3 % of bots, 1 % late by up to 30 s, 1 % twice;
1,000 events in a second of event time.
"""

import random
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID

from msgspec import json

ORG_UNITS = 5
LEADS = 200_000
VELOCITY = {"Email Open": (10, 300_000), "Page View": (20, 60_000), "Form Submit": (5, 60_000)}
"""Threshold and window, ms, by event type."""
CONDITIONS = (
    ("user_agent", "contains", "bot"),
    ("path", "starts_with", "/internal"),
    ("referrer", "equals", "https://spam.example"),
)
_TYPES = ("Page View", "Email Open", "Email Click", "Form Submit", "Email Sent", "Meeting Booked")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1 Safari/605",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Gecko/20100101 Firefox/133.0",
)
_BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
_PATHS = ("/pricing", "/", "/blog/stream-processing", "/docs/start", "/signup", "/internal/health")
_REFERRERS = ("https://google.com", "https://news.example.org/a?b=1", "https://spam.example")


class Sent(NamedTuple):
    """A message, and the verdict its event has to get."""

    key: bytes
    value: bytes
    id: str
    reason: str | None


@dataclass
class _Maker:
    chance: random.Random
    start_ms: int
    made: list[Sent] = field(default_factory=list)
    bursts: list[tuple[int, str]] = field(default_factory=list)
    past: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Times of events so far, ascending, by lead and type."""

    def next(self, number: int, lead: int) -> Sent:
        """The message of this number; `lead` is whose it is, unless it belongs to a burst or was sent before."""
        if self.made and self.chance.random() < 0.01:
            return self.made[-self.chance.randint(1, min(len(self.made), 5_000))]
        event_type = self.chance.choices(_TYPES, cum_weights=(45, 65, 75, 85, 95, 100))[0]
        if self.chance.random() < 0.05:
            lead, event_type = self._burst()
        late = self.chance.randrange(30_000) if self.chance.random() < 0.01 else 0
        return self._sent(f"ld_{lead}", event_type, self.start_ms + number - late, lead)

    def _burst(self) -> tuple[int, str]:
        """One of eight that go on at a time, of some 40 events each."""
        while len(self.bursts) < 8:
            self.bursts.append((self.chance.randrange(LEADS), self.chance.choice([*VELOCITY])))
        chosen = self.chance.randrange(8)
        return self.bursts.pop(chosen) if self.chance.random() < 0.025 else self.bursts[chosen]

    def _sent(self, lead_id: str, event_type: str, at: int, lead: int) -> Sent:
        event_id = f"evt-{UUID(int=self.chance.getrandbits(128), version=4)}"
        metadata = {
            "path": self.chance.choices(_PATHS, cum_weights=(30, 60, 75, 89, 99, 100))[0],
            "referrer": self.chance.choices(_REFERRERS, cum_weights=(60, 99, 100))[0],
            "user_agent": _BOT if self.chance.random() < 0.03 else self.chance.choice(_AGENTS),
        }
        event = {
            "id": event_id,
            "org_unit": org_unit(lead),
            "lead_id": lead_id,
            "event_type": event_type,
            "metadata": metadata,
            "created_at": _rfc3339(at),
        }
        value = json.encode(event)
        reason = self._velocity(lead_id, event_type, at) or _attribute(metadata)
        return Sent(lead_id.encode(), value, event_id, reason)

    def _velocity(self, lead_id: str, event_type: str, at: int) -> str | None:
        """Counted among all events of the lead and type that came before."""
        if event_type not in VELOCITY:
            return None
        threshold, window_ms = VELOCITY[event_type]
        times = self.past.setdefault((lead_id, event_type), [])
        insort(times, at)
        count = bisect_right(times, at) - bisect_right(times, at - window_ms)
        return "inorganic" if count > threshold else None


def traffic(events: int, start_ms: int, seed: int = 1) -> Sequence[Sent]:
    """So many messages, in the order they are sent; event time begins at `start_ms`."""
    maker = _Maker(random.Random(seed), start_ms)
    weights = list(accumulate(1 / (rank + 50) for rank in range(LEADS)))
    leads = maker.chance.choices(range(LEADS), cum_weights=weights, k=events)
    for number, lead in enumerate(leads):
        maker.made.append(maker.next(number, lead))
    return maker.made


def verdicts(sent: Sequence[Sent]) -> dict[str, str | None]:
    """The reason, or none, of each event by its id."""
    return {one.id: one.reason for one in sent}


def filters() -> dict[str, object]:
    """The filters of every org unit, as `filters apply` takes them."""
    velocity = [
        {"id": f"vf-{n}", "name": name, "event_type": name, "threshold": most, "window_ms": ms}
        for n, (name, (most, ms)) in enumerate(VELOCITY.items())
    ]
    metadata = [
        {"id": f"mf-{n}", "name": key, "conditions": [condition]}
        for n, (key, condition) in enumerate(_conditions())
    ]
    both = {"velocity_filters": velocity, "metadata_filters": metadata}
    return {"org_units": {org_unit(lead): both for lead in range(ORG_UNITS)}}


def org_unit(lead: int) -> str:
    """Of a lead."""
    return f"ou-{lead % ORG_UNITS}"


def _conditions() -> Iterator[tuple[str, dict[str, str]]]:
    for key, operator, value in CONDITIONS:
        yield key, {"key": key, "operator": operator, "value": value}


def _attribute(metadata: dict[str, str]) -> str | None:
    agent, path, referrer = metadata["user_agent"], metadata["path"], metadata["referrer"]
    matched = "bot" in agent.lower() or path.startswith("/internal") or "spam" in referrer
    return "metadata_filter" if matched else None


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
