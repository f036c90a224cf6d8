"""A chosen dozen of the fault matrix, with fewer events than ``make faults`` sends."""

import pytest

from tests.faults.matrix import Row, played, rows
from tests.faults.servers import FaultStack

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(240)]
EVENTS = 3_000
CHOSEN = (
    "worker killed at each of 10 points",
    "transactional id of lanes hijacked 8 times",
    "answer to EndTxn lost, every 5th",
    "Redis flushed 12 times, data and scripts",
    "Redis fails over to a replica that lacks acknowledged writes",
    "Postgres ends all sessions, 25 times",
    "Postgres killed and started again, twice",
    "the answer to every 3rd commit in Postgres lost",
    "poison: 55 kinds of bad messages, a fifth of all",
    "events deleted, and the whole input processed again",
    "merges, chains, cycles, repeats and unmerges while workers die between a merge and its move",
    "the dead-letter topic is gone, and comes back",
)


def chosen() -> list[Row]:
    """The rows by their names."""
    known = {row.name: row for row in rows()}
    return [known[name] for name in CHOSEN]


@pytest.mark.parametrize("row", chosen(), ids=lambda row: row.name)
async def test_the_invariants_hold_under(row: Row, fault_stack: FaultStack) -> None:
    """The fault bit, everything was taken up again, and the checker finds nothing wrong."""
    result = await played(row, fault_stack, 1, EVENTS)
    assert result.good, result.verdict
