"""Where everything happens that one part of the system does to another: step by step, in an order chosen from outside.

Whatever waits for a server, or for another worker, waits at a gate.  Between two gates nothing outside can come in between, so
the order in which gates are opened, and what goes wrong when they are, is all there is to a schedule.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiokafka.errors import KafkaError

from processor.failures import Failure
from tests.fakes_rules import Document
from tests.unit.simulation.loop import Loop

T = TypeVar("T")

Effect: TypeAlias = Callable[[int], Any]
"""What is done, in one step; the number is a choice where there is one."""
FAULTS = ("fails", "unheard", "late")
"""A call is refused, done although its caller hears of no success, or still on its way when the caller gives up."""


class Step(NamedTuple):
    """One choice of the scheduler."""

    kind: str
    who: str = ""
    n: int = 0
    documents: tuple[Document, ...] = ()


@dataclass
class Process:
    """A worker, as the machine sees it."""

    name: str
    alive: bool = True
    asleep: bool = False

    @property
    def runs(self) -> bool:
        """It does something when it is its turn."""
        return self.alive and not self.asleep


@dataclass
class Gate:
    """One call that waits to be let through."""

    process: Process
    what: str
    effect: Effect
    failure: Exception | None
    """What the caller sees when it fails; None: it does not."""
    possible: Callable[[], bool]
    answer: "asyncio.Future[Any]"

    @property
    def opens(self) -> bool:
        """It is possible now, and somebody waits for it."""
        process = self.process
        return process.alive and not process.asleep and not self.answer.done() and self.possible()


class Stage:
    """All gates, and what is still on its way."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.gates: dict[str, Gate] = {}
        """By who waits there."""
        self.flying: list[tuple[str, Effect]] = []
        """Calls that were given up, but not by who receives them."""
        self.problems: list[object] = []
        """What must never happen, and did."""

    async def does(
        self,
        who: tuple[Process, str],
        what: str,
        effect: Callable[[int], T],
        failure: Exception | None = None,
        possible: Callable[[], bool] = lambda: True,
    ) -> T:
        """What `effect` returns, once it is its turn."""
        process, part = who
        if not process.alive:
            raise OSError("the process is dead")
        name = f"{process.name}, {part}" if part else process.name
        while name in self.gates:
            name += "'"  # a former lane of the same partition
        answer: asyncio.Future[T] = self.loop.create_future()
        self.gates[name] = Gate(process, what, effect, failure, possible, answer)
        try:
            return await answer
        finally:
            self.gates.pop(name, None)

    def open(self) -> list[str]:
        """Who waits at a gate that may be opened now, whoever came first first."""
        return [name for name, gate in self.gates.items() if gate.opens]

    def opens(self, name: str) -> bool:
        """Whether somebody of that name waits at a gate that may be opened now."""
        return name in self.gates and self.gates[name].opens

    def lets(self, name: str, n: int) -> str:
        """It goes well, as far as it can."""
        gate = self.gates[name]
        try:
            gate.answer.set_result(gate.effect(n))
        except Exception as refusal:
            gate.answer.set_exception(refusal)
            return f"{name} {gate.what}: {type(refusal).__name__}"
        return f"{name} {gate.what}"

    def fails(self, step: Step) -> str | None:
        """In one of the ways of `FAULTS`; None where the call cannot fail."""
        gate = self.gates[step.who]
        if gate.failure is None:
            return None
        gate.answer.set_exception(gate.failure)
        if step.kind == "unheard":
            self._attempt(gate.effect)
            return f"{step.who} {gate.what}, but does not hear of it"
        if step.kind == "late":
            self.flying.append((f"{step.who} {gate.what}", gate.effect))
            return f"{step.who} {gate.what}, gives up, and it is still on its way"
        return f"{step.who} {gate.what}, and fails"

    def arrives(self) -> str | None:
        """What was given up is done all the same."""
        if not self.flying:
            return None
        what, effect = self.flying.pop(0)
        self._attempt(effect)
        return f"arrives late: {what}"

    def _attempt(self, effect: Effect) -> None:
        """Nobody hears of the answer."""
        with suppress(Failure, KafkaError):
            effect(0)
