"""What is varied, each alone with the rest as in `make bench`, and what must come of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.bench.growth_rules import Rule
from tests.bench.growth_traffic import Attribute, Shape, Velocity

PARTITIONS = 8
EVENTS = 60_000
_YEAR_MS = 365 * 86_400_000
_BASE = Shape()
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True)
class Point:
    """One run."""

    label: str
    x: float
    shape: Shape = _BASE
    partitions: int = PARTITIONS
    events: int = EVENTS
    ago_ms: int = 0
    """How long before now events occur."""
    known: bool = False
    """Leads have windows of now: the warm-up is not so long ago."""
    stored: int = 0
    """Events that are there before."""
    lost: bool = False
    """The windows of what is stored are not there."""


@dataclass(frozen=True)
class Series:
    """Points in ascending order."""

    name: str
    about: str
    points: Sequence[Point]
    rule: Rule
    slower: float
    """By what factor fewer events a second may be done at any point than at the first, whatever the CPU: lanes wait for each other.
    Only where CPU must be flat."""


def _velocity(count: int, event_type: str) -> Sequence[Velocity]:
    """Filters of one type, no two alike."""
    return [Velocity(event_type, 20, _MINUTE_MS + 10 * n) for n in range(count)]


def _attributes(count: int, event_type: str = "") -> Sequence[Attribute]:
    return [Attribute("user_agent", "contains", f"crawler-{n}", event_type) for n in range(count)]


def _windows(window_ms: int) -> Shape:
    return replace(_BASE, velocity=[one._replace(window_ms=window_ms) for one in _BASE.velocity])


def _thresholds(threshold: int) -> Shape:
    return replace(_BASE, velocity=[one._replace(threshold=threshold) for one in _BASE.velocity])


def _watching(count: int) -> Point:
    shape = replace(_BASE, velocity=_velocity(count, "Page View"))
    return Point(f"{count:,}", count, shape, events=min(EVENTS, 2_000_000 // count))


def _matching(count: int) -> Point:
    shape = replace(_BASE, attributes=_attributes(count))
    return Point(f"{count:,}", count, shape, events=min(EVENTS, 10_000_000 // count))


def _elsewhere(count: int) -> Point:
    """Beside those of the traffic: as many as an org unit may have."""
    velocity = [*_BASE.velocity, *_velocity(count - len(_BASE.velocity), "Webinar Joined")]
    attributes = [
        *_BASE.attributes,
        *_attributes(count - len(_BASE.attributes), "Webinar Joined"),
    ]
    return Point(f"{count:,}", count, replace(_BASE, velocity=velocity, attributes=attributes))


SERIES = (
    Series(
        "partitions",
        "of the raw topic, for one worker",
        [Point(f"{n}", n, partitions=n) for n in (1, 2, 4, 8, 64)],
        Rule("flat", 1.6),
        2.0,
    ),
    Series(
        "stored",
        "events that were there before",
        [Point(f"{n:,}", n, stored=n) for n in (0, 1_000_000, 10_000_000)],
        Rule("logarithmic", 1.5),
        2.0,
    ),
    Series(
        "lost",
        "events that were there before, whose windows Redis has lost",
        [Point(f"{n:,}", n, stored=n, lost=True) for n in (1_000_000, 10_000_000)],
        Rule("logarithmic", 1.5),
        2.0,
    ),
    Series(
        "velocity",
        "filters of the type of 45 % of the events, in each org unit",
        [_watching(n) for n in (1, 10, 100, 1_000)],
        Rule("linear", 2.0),
        2.0,
    ),
    Series(
        "metadata",
        "filters of every type that match nothing, in each org unit",
        [_matching(n) for n in (1, 10, 100, 1_000)],
        Rule("linear", 2.0),
        2.0,
    ),
    Series(
        "elsewhere",
        "filters of each kind, all but 3 of a type that does not come",
        [_elsewhere(n) for n in (3, 10, 100, 1_000)],
        Rule("flat", 1.3),
        1.5,
    ),
    Series(
        "org_units",
        "that the traffic is of",
        [
            Point(f"{n:,}", n, replace(_BASE, org_units=n), events=2 * EVENTS)
            for n in (1, 10, 100, 1_000)
        ],
        Rule("flat", 1.6),
        2.0,
    ),
    Series(
        "windows",
        "length of every window",
        [
            Point("1 s", 1, _windows(1_000)),
            Point("1 min", 60, _windows(_MINUTE_MS)),
            Point("1 h", 3_600, _windows(_HOUR_MS)),
            Point("24 h", 86_400, _windows(_DAY_MS)),
        ],
        Rule("flat", 1.4),
        1.6,
    ),
    Series(
        "thresholds",
        "threshold of every velocity filter",
        [Point(f"{n:,}", n, _thresholds(n)) for n in (1, 10, 100, 1_000, 10_000)],
        Rule("flat", 1.4),
        1.6,
    ),
    Series(
        "hot",
        "share of the events that are of one lead, so of one partition",
        [Point(f"{n} %", n, replace(_BASE, hot=n / 100)) for n in (1, 20, 90)],
        Rule("flat", 1.4),
        2.5,
    ),
    Series(
        "backfill",
        "how long ago: beyond what Redis is trusted for",
        [
            Point("now", 0),
            Point("a year, new leads", 1, ago_ms=_YEAR_MS),
            Point("a year, known leads", 2, ago_ms=_YEAR_MS, known=True),
        ],
        Rule("flat", 2.5),
        3.0,
    ),
)
