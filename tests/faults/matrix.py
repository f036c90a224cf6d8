"""The fault matrix: every row is a fault, how it is injected, and the proof that it bit.

A row is an async function of a `Field` that sends the load, injects its fault, heals, and returns what shows that the fault was
there; whoever runs it then drains, and lets the checker judge.  Modules named ``rows_*`` hold the rows.
"""

import importlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from processor.io.migrate import migrate
from tests import harness
from tests.faults.checker import Violation
from tests.faults.field import Field
from tests.faults.servers import FaultStack

EVENTS = 10_000
"""Of every row of ``make faults``, at least."""


class Bitten(NamedTuple):
    """What shows that the fault was there; none of it: the row proves nothing and fails."""

    times: float
    what: str


class NotRunError(Exception):
    """The row cannot run on this machine; its text says what is missing."""


Inject: TypeAlias = Callable[[Field], Awaitable[Bitten]]


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    module: str
    inject: Inject
    optional: bool = False
    """The machine may lack what it needs."""


@dataclass(frozen=True)
class Result:
    """What became of a row."""

    row: Row
    seed: int
    asked: int
    """How many events it was to send, at least."""
    events: int = 0
    bitten: Bitten | None = None
    recovery_s: float = 0.0
    took_s: float = 0.0
    violations: Sequence[Violation] = ()
    error: str = ""
    """Why it did not run, or broke off."""
    not_run: bool = False

    @property
    def good(self) -> bool:
        """The fault bit, enough was sent meanwhile, and nothing is wrong."""
        wrong = self.error or self.violations or self.events < self.asked
        return bool(not wrong and self.bitten and self.bitten.times)

    @property
    def verdict(self) -> str:
        """As the table shows it."""
        if self.not_run:
            return f"NOT RUN: {self.error}"
        if self.violations:
            names = sorted({violation.invariant for violation in self.violations})
            return f"VIOLATED {' '.join(names)}: {self.violations[0].text}"
        if self.error:
            return f"FAILED: {self.error}"
        if self.events < self.asked:
            return f"FAILED: {self.events:,} of {self.asked:,} events were sent"
        return "holds" if self.good else "FAILED: the fault did not bite"


_ROWS: list[Row] = []
MODULES = (
    *(
        "worker",
        "kafka",
        "kafka_wire",
        "kafka_topics",
        "redis",
        "postgres",
        "disk",
        "input",
        "merges",
    ),
    *("load", "large", "rebalance"),
)


def row(name: str, *, optional: bool = False) -> Callable[[Inject], Inject]:
    """Makes a function a row of the matrix."""

    def take(inject: Inject) -> Inject:
        _ROWS.append(Row(name, inject.__module__.rpartition(".")[2], inject, optional))
        return inject

    return take


def rows() -> list[Row]:
    """All rows, in the order of their modules."""
    for module in MODULES:
        importlib.import_module(f"tests.faults.rows_{module}")
    return list(_ROWS)


@asynccontextmanager
async def field_of(stack: FaultStack, seed: int, events: int) -> AsyncIterator[Field]:
    """A fresh world on the servers, prepared; its database, topics and windows are nobody else's."""
    name = harness.create_database(stack.postgres)
    url = harness.database_url(stack.postgres, name)
    await migrate(url)
    world = harness.World(
        stack.kafka, harness.empty_redis(stack.redis), url, f"f{secrets.token_hex(4)}"
    )
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        run = Field(stack, world, Path(folder), seed, events)
        try:
            await run.prepare()
            yield run
        finally:
            await run.close()
            harness.flush_redis(world.redis)
            harness.drop_database(stack.postgres, name)


async def played(row: Row, stack: FaultStack, seed: int, events: int = EVENTS) -> Result:
    """Runs one row to its result; never raises what went wrong before, in or after it."""
    started = time.monotonic()
    result = Result(row, seed, events)
    try:
        async with field_of(stack, seed, events) as field:
            result = await _injected(result, field)
            if result.violations or (result.error and not result.not_run):
                _keep_logs(row, field)
    except Exception as broken:
        said = filter(None, (result.error, _said(broken)))
        result = replace(result, error="; then ".join(said), not_run=False)
    return replace(result, took_s=time.monotonic() - started)


async def _injected(result: Result, field: Field) -> Result:
    """What becomes of the row on a field that is prepared."""
    try:
        result = replace(result, bitten=await result.row.inject(field))
        evidence, violations = await field.verdict()
        result = replace(result, violations=violations, recovery_s=evidence.recovery_s)
    except NotRunError as missing:
        result = replace(result, error=str(missing), not_run=True)
    except Exception as broken:
        result = replace(result, error=_said(broken))
    return replace(result, events=len(field.history.sent))


def _said(error: BaseException) -> str:
    """The innermost reason."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:2_000]


def _keep_logs(row: Row, field: Field) -> None:
    """What the workers of a failed row said, for whoever looks for the reason."""
    kept = Path(tempfile.mkdtemp(prefix="faults-failed-"))
    (kept / "row").write_text(f"{row.name}\nseed {field.seed}\n")
    for worker in field.workers:
        (kept / worker.log.name).write_text(worker.output)
