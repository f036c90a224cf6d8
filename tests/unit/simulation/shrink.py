"""From a schedule that fails to the shortest one that can be found: fewer messages, filters and steps, as long as it still fails."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from tests.unit.simulation.clients import SIZES
from tests.unit.simulation.run import AS_IT_IS, Run
from tests.unit.simulation.stage import Step
from tests.unit.simulation.stores import Parts
from tests.unit.simulation.traffic import World, world

T = TypeVar("T")
EFFORT = 150_000
"""Steps that the runs of a search may take: some ten seconds."""


class Failing(NamedTuple):
    """A schedule and what it ends in."""

    world: World
    steps: tuple[Step, ...]
    lines: tuple[str, ...]
    problems: tuple[object, ...]

    @property
    def size(self) -> int:
        """What there is to read."""
        given = self.world
        return len(given.sent) + len(given.documents) + given.workers + len(self.steps)

    @property
    def measure(self) -> tuple[int, int]:
        """What is to become small; of two of one size, the one that fetches less at once."""
        return self.size, sum(step.n for step in self.steps)

    def __str__(self) -> str:
        """For whoever has to understand it."""
        given = [str(sent) for sent in self.world.sent]
        given += [f"filter: {document}" for document in self.world.documents]
        guarantee = "exactly once" if self.world.exactly_once else "at least once"
        told = "\n".join(
            f"  {line}" for line in (*given, *self.lines, "from here on all goes well")
        )
        wrong = "\n".join(f"  {problem}" for problem in self.problems)
        return f"{guarantee}, workers: {self.world.workers}\n{told}\nwrong:\n{wrong}"


def schedule(seed: int, parts: Parts = AS_IT_IS) -> Failing | None:
    """What a seed gives; None where nothing is wrong with it."""
    r = random.Random(seed)
    run = Run(world(r), parts)
    return _failing(run, lambda: run.by_chance(r))


def again(world: World, steps: Sequence[Step], parts: Parts = AS_IT_IS) -> Failing | None:
    """What these steps give."""
    run = Run(world, parts)
    return _failing(run, lambda: run.again(steps))


def _failing(run: Run, go: Callable[[], Run]) -> Failing | None:
    """A run may also fail in code that it should never have come to."""
    try:
        found = go().problems()
    except Exception as error:  # any failure is a difference
        found = [*run.stage.problems, error]
    if not found:
        return None
    return Failing(run.world, tuple(run.steps), tuple(run.lines), tuple(found))


class Search:
    """Keeps the smallest schedule found so far."""

    def __init__(self, failing: Failing, parts: Parts = AS_IT_IS, effort: int = EFFORT) -> None:
        self.best = failing
        self._parts = parts
        self._effort = effort

    def __call__(self) -> Failing:
        """Until nothing more can be left out, or it has tried for long enough."""
        before = None
        while self.best.measure != before and self._effort > 0:
            before = self.best.measure
            self._fewer(lambda: self.best.steps, lambda some: self._try(self.best.world, some))
            self._fewer(
                lambda: self.best.world.sent,
                lambda some: self._given(replace(self.best.world, sent=some)),
            )
            self._fewer(
                lambda: self.best.world.documents,
                lambda some: self._given(replace(self.best.world, documents=some)),
            )
            self._given(replace(self.best.world, workers=1))
            for n in range(len(self.best.steps)):
                self._simpler(n)
        return self.best

    def _fewer(
        self, items: Callable[[], tuple[T, ...]], attempt: Callable[[tuple[T, ...]], None]
    ) -> None:
        """Leaves out ever smaller parts, the last ones first."""
        size = max(1, len(items()) // 2)
        while size and self._effort > 0:
            start = len(items())
            while start > 0:
                now = items()
                start = max(0, min(start, len(now)) - size)
                attempt(now[:start] + now[start + size :])
            size //= 2

    def _simpler(self, number: int) -> None:
        """The least that a step may do, which nearly always is one fetched record."""
        for less in (lambda n: 0, lambda n: n - n % len(SIZES)):
            steps = list(self.best.steps)
            if number < len(steps) and steps[number].n != less(steps[number].n):
                steps[number] = steps[number]._replace(n=less(steps[number].n))
                self._try(self.best.world, tuple(steps))

    def _given(self, world: World) -> None:
        self._try(world, self.best.steps)

    def _try(self, world: World, steps: tuple[Step, ...]) -> None:
        if self._effort <= 0 or not world.sent:
            return
        run = Run(world, self._parts)
        found = _failing(run, lambda: run.again(steps))
        self._effort -= run.effort
        if found is not None and found.measure < self.best.measure:
            self.best = found
