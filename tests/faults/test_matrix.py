"""A chosen dozen of the fault matrix, with fewer events than ``make faults`` sends."""

import pytest

from tests.faults.matrix import Row, played, rows
from tests.faults.servers import FaultStack

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(240)]
EVENTS = 3_000
CHOSEN = ("worker killed at each of 10 points",)


def chosen() -> list[Row]:
    """The rows by their names."""
    known = {row.name: row for row in rows()}
    return [known[name] for name in CHOSEN]


@pytest.mark.parametrize("row", chosen(), ids=lambda row: row.name)
async def test_the_invariants_hold_under(row: Row, fault_stack: FaultStack) -> None:
    """The fault bit, everything was taken up again, and the checker finds nothing wrong."""
    result = await played(row, fault_stack, 1, EVENTS)
    assert result.good, result.verdict
