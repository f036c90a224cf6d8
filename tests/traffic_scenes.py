"""The scenes an adversarial stream is made of: each yields the events of one lead, in the order they are sent.  Times are ms."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.traffic_filters import DAY

KINDS = ("page view", "email open", "qa ping", "click", "form submit", "other")
ORG_UNITS = ("acme", "acme", "acme", "acme", "globex", "Zürich 猫", "initech")
LEADS = (*(f"lead-{n}" for n in range(45)), "Ünïcödé 猫", "a/b?c=d", "lead 7", '"', "x" * 128)
WINDOWS = (
    ("page view", 3, 1_000),
    ("page view", 3, 1_000),
    ("page view", 6, 5_000),
    ("page view", 2, 1_500),
    ("page view", 4, 90_000),
    ("page view", 25, DAY),
    ("email open", 0, 700),
    ("email open", 2, 60_000),
    ("email open", 1, 1_400),
    ("qa ping", 0, 1),
    ("click", 1, 1),
    ("click", 5, 30 * DAY),
    ("form submit", 0, 1_000),
)


class Planned(NamedTuple):
    """An event a scene wants."""

    org_unit: str
    lead_id: str
    event_type: str
    at: int


@dataclass
class World:
    """What scenes know: the clock of the stream, and how late and early an event may be."""

    r: random.Random
    now: int
    start_ms: int
    lateness_ms: int
    max_future_ms: int


def scene(world: World) -> Iterator[Planned]:
    """A random one."""
    play = world.r.choice((*[_person] * 5, *[_burst] * 4, *[_edges] * 3, _chain, _hot))
    return play(world)


def _anchor(world: World) -> int:
    """Mostly now; sometimes late, up to well beyond the allowed lateness."""
    if world.r.random() < 0.25:
        return world.now - world.r.randrange(3 * world.lateness_ms)
    return world.now


def who(world: World) -> tuple[str, str]:
    """An org unit and a lead of it."""
    return world.r.choice(ORG_UNITS), world.r.choice(LEADS)


def _person(world: World) -> Iterator[Planned]:
    """Anything, at a human pace, some of it out of order."""
    whose = who(world)
    for _ in range(world.r.randrange(2, 9)):
        late = world.r.randrange(60_000) if world.r.random() < 0.2 else 0
        yield Planned(*whose, world.r.choice(KINDS), world.now - late)


def _burst(world: World) -> Iterator[Planned]:
    """N, N + 1 or more events in one window, its edges hit to the millisecond, sometimes shuffled."""
    whose, (kind, n, width), anchor = who(world), world.r.choice(WINDOWS), _anchor(world)
    size = n + world.r.choice((0, 1, 1, 2, 5))
    times = [anchor + world.r.randrange(width) for _ in range(max(size - 2, 0))]
    times = [anchor, *sorted(times), anchor + width + world.r.choice((-1, -1, 0, 0, 1))]
    if world.r.random() < 0.4:
        world.r.shuffle(times)
    yield from _in_reach(world, whose, kind, times)


def _edges(world: World) -> Iterator[Planned]:
    """Crowds whose distances are one window, less or more a millisecond, on either side."""
    whose, (kind, n, width), anchor = who(world), world.r.choice(WINDOWS), _anchor(world)
    times: list[int] = []
    for _ in range(world.r.randrange(2, 5)):
        times += [anchor] * (min(n, 6) + 1)
        anchor += world.r.choice((-1, 1, 1)) * width + world.r.choice((-1, 0, 0, 1))
    if world.r.random() < 0.3:
        world.r.shuffle(times)
    yield from _in_reach(world, whose, kind, times)


def _chain(world: World) -> Iterator[Planned]:
    """A machine that keeps firing: a burst far longer than its window, with late events between."""
    whose, (kind, n, width), anchor = who(world), world.r.choice(WINDOWS), _anchor(world)
    step = max(width // (n + 2), 1) if width < DAY else 50
    times = [anchor + step * k for k in range(world.r.randrange(n + 2, n + 20))]
    for _ in range(3):
        late = times.pop(world.r.randrange(len(times)))
        times.append(late)
    yield from _in_reach(world, whose, kind, times)


def _hot(world: World) -> Iterator[Planned]:
    """One lead that everything happens to."""
    for _ in range(world.r.randrange(5, 25)):
        jitter = world.r.choice((0, 0, 1, 500, 1_000, 5_000))
        yield Planned("acme", "lead-0", "page view", world.now - jitter)


def _in_reach(
    world: World, whose: tuple[str, str], kind: str, times: list[int]
) -> Iterator[Planned]:
    """Whole scenes stay within the allowed future, moved into the past by days where they would not."""
    over = max(times) - (world.start_ms + world.max_future_ms)
    back = -(-over // DAY) * DAY if over > 0 else 0
    for at in times:
        yield Planned(*whose, kind, at - back)
