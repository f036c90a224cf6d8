"""One schedule: real workers with their groups, lanes, sinks and pipelines over the fake systems, step by step.

First a seed, or a list of steps, decides what happens next; then all goes well until everything is processed.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from tests.fakes import Database
from tests.fakes_rules import NO_RULES
from tests.unit.simulation.broker import Broker
from tests.unit.simulation.checks import wrong
from tests.unit.simulation.stage import FAULTS, Process, Stage, Step
from tests.unit.simulation.stores import Parts, Shared
from tests.unit.simulation.traffic import World, documents
from tests.unit.simulation.truth import Truth
from tests.unit.simulation.workers import Workers

AS_IT_IS = Parts()
_MOST_STEPS = 1_000
"""In which all that goes well has to end: some four times what any schedule takes."""
_LARGE = 3
"""The choice of the largest fetch."""
_TROUBLES = {
    "crash": 4,
    "flush": 5,
    "rules": 8,
    "rebalance": 6,
    "sleep": 2,
    "wake": 2,
    "missed": 2,
    "arrives": 2,
    "drain": 1,
    "expires": 1,
}
"""What may happen between any two steps, and how often each comes."""
_WAITING = 0.03
"""How often time passes although there is something to do."""


class Run:
    """A world in which steps are done; `lines` tells them, `problems` what is wrong."""

    def __init__(self, world: World, parts: Parts = AS_IT_IS) -> None:
        database = Database(replace(NO_RULES, order=world.order))
        database.change(*world.documents)
        windows = parts.windows(database, world.lateness)
        self.world = world
        self.stage = Stage()
        self.broker = Broker(world.logs())
        self.shared = Shared(database, windows, Truth(world.order))
        self.workers = Workers(self.stage, self.broker, self.shared, parts)
        self.steps: list[Step] = []
        """Those that could be done."""
        self.lines: list[str] = []
        self.effort = 0
        """Steps of all kinds, those that go well in the end included."""

    def by_chance(self, r: random.Random) -> "Run":
        """Any order, any trouble."""
        return self._all(self._chosen(r))

    def again(self, steps: Iterable[Step]) -> "Run":
        """These steps, as far as each is possible when its turn comes."""
        return self._all(iter(steps))

    def problems(self) -> Sequence[object]:
        """What is not as it must be."""
        return [*self.stage.problems, *wrong(self.world, self.broker, self.shared)]

    def _all(self, steps: Iterator[Step]) -> "Run":
        with self.stage.loop.running():
            for _ in range(self.world.workers):
                self.workers.begin(self.world)
            self.stage.loop.settle()
            for step in steps:
                self._do(step)
            self._calm()
            for name in self.workers.names:
                self.workers.kill(name)
            self.stage.problems += self.stage.loop.failures
        return self

    def _chosen(self, r: random.Random) -> Iterator[Step]:
        steps = r.choice((60, 150, 400))
        trouble = r.choice((0.02, 0.06, 0.15))
        faults = r.choice((0, 0.08, 0.25))
        for _ in range(steps):
            gates = self.stage.open()
            if not gates and self._finished:
                return
            chance = r.random()
            if chance < trouble:
                yield self._trouble(r)
            elif not gates or chance < trouble + _WAITING:
                kind = r.choice(("time", "time", "missed", "wake"))
                yield Step(kind, r.choice(self.workers.names), r.choice((1, 1, 2, 5)))
            else:
                kind = r.choice(FAULTS) if r.random() < faults else "open"
                yield Step(kind, self._next(r, gates), r.randrange(64))

    def _next(self, r: random.Random, gates: Sequence[str]) -> str:
        """Whose turn it is: to hear that somebody else has one's partitions takes longer than the rest."""
        name = r.choice(gates)
        return r.choice(gates) if name in self.workers.names else name

    def _trouble(self, r: random.Random) -> Step:
        kind = r.choices(list(_TROUBLES), list(_TROUBLES.values()))[0]
        changed = tuple(documents(r)) if kind == "rules" else ()
        return Step(kind, r.choice(self.workers.names), r.randrange(64), changed)

    def _do(self, step: Step) -> None:
        self.effort += 1
        at_gate = step.kind == "open" or step.kind in FAULTS
        line = self._at_gate(step) if at_gate else self._around(step)
        if line is not None:
            self.steps.append(step)
            self.lines.append(line)
            self.stage.loop.settle()

    def _at_gate(self, step: Step) -> str | None:
        """Who is not there yet may come as soon as nobody else has anything to do."""
        stage = self.stage
        if not stage.opens(step.who) and not stage.open():
            self._do(Step("time", n=1))
        if not stage.opens(step.who):
            return None
        return stage.lets(step.who, step.n) if step.kind == "open" else stage.fails(step)

    def _around(self, step: Step) -> str | None:
        """What happens to everybody; None where it is not possible now."""
        match step.kind:
            case "time":
                return self._waits(step.n)
            case "flush":
                self.shared.windows.flush()
                return "Redis forgets everything"
            case "rules":
                self.shared.database.change(*step.documents)
                return f"the filters are changed to {list(step.documents)}"
            case "arrives":
                return self.stage.arrives()
            case "expires":
                return self.broker.expire(step.n)
            case "rebalance":
                return self.broker.rebalance()
            case _:
                return self._to_worker(step)

    def _to_worker(self, step: Step) -> str | None:
        match step.kind:
            case "crash":
                return self.workers.crash(step.who, self.world)
            case "drain":
                return self.workers.drain(step.who, self.world)
            case "sleep":
                return self.workers.sleep(step.who)
            case "wake":
                return self.workers.wake(step.who)
            case "missed":
                return self.workers.missed()
            case _:
                raise AssertionError(step)

    def _waits(self, timers: int) -> str | None:
        loop = self.stage.loop
        before, fired = loop.time(), 0
        for _ in range(timers):
            fired += loop.advance(_runs)
            loop.settle()
        return f"{loop.time() - before:.1f} s pass" if fired else None

    def _calm(self) -> None:
        """From here on all goes well."""
        self.workers.mend(self.world)
        stage = self.stage
        for _ in range(_MOST_STEPS):
            self.effort += 1
            stage.loop.settle()
            if gates := stage.open():
                stage.lets(gates[0], _LARGE)
            elif self._finished:
                return
            elif not stage.loop.advance(_runs):
                break
        stage.problems.append("the schedule does not end")

    @property
    def _finished(self) -> bool:
        return self.broker.done and not self.shared.moves


def _runs(owner: object) -> bool:
    return not isinstance(owner, Process) or owner.runs
