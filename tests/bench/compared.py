"""Whom the worker is compared with: rivals by name, each over as many events as it takes to get warm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from processor.bench.contenders import FLOOR, OWN, Contender
from processor.failures import StartRefused
from tests.bench.rivals import faust, kstreams, quix

Rivals: TypeAlias = Callable[[Path], Sequence[Contender]]
ALONE = 300_000
"""Events where no rival is asked for."""
RIVALS: Mapping[str, tuple[Rivals, int]] = {
    "kstreams": (kstreams.contenders, 1_000_000),  # the JIT compiler is at work for half a million
    "faust": (faust.contenders, 60_000),
    "quix": (quix.contenders, 60_000),
}


@dataclass(frozen=True)
class Comparison:
    """Who takes turns over so many events."""

    name: str
    events: int
    contenders: Sequence[Contender]


def comparisons(
    rivals: Sequence[str], events: int | None, only: Sequence[str], folder: Path
) -> Iterator[Comparison]:
    """One for each number of events, the largest first; `only` leaves out whoever it does not name but the floor.

    Raises `StartRefused` where nobody is left in one.
    """
    if not rivals:
        yield Comparison("bench", events or ALONE, kept((FLOOR, *OWN), only))
    lengths = {name: events or RIVALS[name][1] for name in rivals}
    for length in sorted({*lengths.values()}, reverse=True):
        names = [name for name in rivals if lengths[name] == length]
        found = [one for name in names for one in RIVALS[name][0](folder)]
        yield Comparison("-".join(names), length, kept((FLOOR, *OWN, *found), only))


def kept(contenders: Sequence[Contender], only: Sequence[str]) -> Sequence[Contender]:
    """Those named, and the floor; all where none is named.  Raises `StartRefused` where nobody is left beside the floor."""
    left = [one for one in contenders if not only or one.name in {*only, FLOOR.name}]
    if all(one is FLOOR for one in left):
        names = ", ".join(one.name for one in contenders if one is not FLOOR)
        raise StartRefused(f"--only names none of {names}")
    return left
