"""A worker that breaks a rule is found out by the invariant of that rule; the worker of the product passes the same run."""

import asyncio
import copy
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests import harness
from tests.faults.checker import Violation
from tests.faults.field import Field
from tests.faults.history import FILTERS, LEADS, Load
from tests.faults.matrix import field_of
from tests.faults.mutants import MERGE_WITHOUT_LOCK, SLOW_COMMITS
from tests.faults.servers import FaultStack

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(120)]
EVENTS = 1_500
FROZEN_S = 6.0
"""Longer than the session of the workers and than their transactions."""

Run = Callable[[Field], Awaitable[None]]


async def calm(field: Field) -> None:
    """Nothing but the load, in which ids come again with another body."""
    await field.start()
    await field.send(2 * EVENTS)


async def killed_after_commit(field: Field) -> None:
    """SIGKILL right after something was committed in Kafka."""
    await field.start()
    async with field.sending(EVENTS):
        dead = await field.strike("after_commit", "SIGKILL")
        await dead.ended()
        await field.start()


async def woken_before_its_transaction(field: Field) -> None:
    """Frozen with a batch stored and not published; the other worker publishes it meanwhile."""
    await field.start(2)
    async with field.sending(EVENTS, 200):
        zombie = await field.strike("after_write", "SIGSTOP")
        await asyncio.sleep(FROZEN_S)
        os.kill(zombie.pid, signal.SIGCONT)
        await zombie.ready(60)


async def woken_before_it_is_fenced(field: Field) -> None:
    """Frozen with a batch stored and not published; it wakes while its successor is about to start a producer."""
    field.load = Load(field.seed, partitions=1)  # so both have to do with the same lane
    await field.start(2)
    async with field.sending(EVENTS, 200):
        zombie = await field.strike("after_write", "SIGSTOP")
        await field.strike("before_start", "1.2")
        os.kill(zombie.pid, signal.SIGCONT)
        await zombie.ready(60)


async def redelivered_under_other_filters(field: Field) -> None:
    """SIGKILL with a batch stored and not published, and then every filter says something else."""
    await field.start()
    async with field.sending(EVENTS):
        dead = await field.strike("after_begin", "SIGKILL")
        await dead.ended()
        changed: Any = copy.deepcopy(FILTERS)
        for filters in changed["org_units"].values():
            for velocity in filters["velocity_filters"]:
                velocity["threshold"] = 0
        await field.apply(changed)
        await field.start()


async def merged_meanwhile(field: Field) -> None:
    """Merges of all leads while their events are stored, slowly."""
    harness.execute(field.world.postgres, *SLOW_COMMITS)
    await field.start()
    async with field.sending(EVENTS, 300):
        for number in range(1, LEADS):
            await field.merge("acme", "ld-0", f"ld-{number}")
            await asyncio.sleep(0.03)


async def merged_without_lock(field: Field) -> None:
    """The same, with the locks of merges taken out."""
    harness.execute(field.world.postgres, MERGE_WITHOUT_LOCK)
    await merged_meanwhile(field)


KILLS = {
    "offsets before outputs": (killed_after_commit, "I4"),
    "no fencing": (woken_before_its_transaction, "I4"),
    "seek before the producer starts": (woken_before_it_is_fenced, "I4"),
    "facts before the commit": (calm, "I6"),
    "what was decided is published": (redelivered_under_other_filters, "I3"),
}


async def violations(stack: FaultStack, run: Run, **environment: str) -> list[Violation]:
    """What the checker says of a run; the workers that were not struck are alive at its end."""
    async with field_of(stack, 5, EVENTS) as field:
        field.environment |= environment
        await run(field)
        _, found = await field.verdict()
        assert field.workers[-1].running, field.workers[-1].output[-3_000:]
        return found


@pytest.mark.parametrize("mutant", KILLS)
async def test_a_mutant_is_found_by_the_invariant_that_it_breaks(
    fault_stack: FaultStack, mutant: str
) -> None:
    """Not by a crash: it works on to the end."""
    run, invariant = KILLS[mutant]
    found = await violations(fault_stack, run, MUTANT=mutant)
    assert invariant in {violation.invariant for violation in found}, found


async def test_merges_that_take_no_lock_are_found_by_their_invariant(
    fault_stack: FaultStack,
) -> None:
    """Events are stranded with a lead that is no root any more."""
    found = await violations(fault_stack, merged_without_lock)
    assert "I5" in {violation.invariant for violation in found}, found


@pytest.mark.parametrize(
    "run",
    [*dict.fromkeys(run for run, _ in KILLS.values()), merged_meanwhile],
    ids=lambda run: run.__name__,
)
async def test_the_worker_of_the_product_passes_every_run_that_finds_a_mutant(
    fault_stack: FaultStack, run: Run
) -> None:
    """So it is the mutation that is found."""
    assert await violations(fault_stack, run) == []
