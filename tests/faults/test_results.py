"""A row of the fault matrix holds only where its fault bit, enough was sent, and nothing went wrong before, in or after it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.checker import Violation
from tests.faults.field import Field
from tests.faults.matrix import Bitten, Result, Row, played
from tests.faults.servers import FaultStack


async def bites(_: Field) -> Bitten:
    """A fault that bit."""
    return Bitten(1, "times")


ROW = Row("a row", "here", bites)
HOLDS = Result(ROW, seed=1, asked=100, events=100, bitten=Bitten(1, "times"))


def test_a_row_holds_when_its_fault_bit_and_enough_was_sent() -> None:
    """And nothing is wrong."""
    assert (HOLDS.good, HOLDS.verdict) == (True, "holds")


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"events": 99}, "FAILED: 99 of 100 events were sent"),
        ({"bitten": Bitten(0, "times")}, "FAILED: the fault did not bite"),
        ({"bitten": None}, "FAILED: the fault did not bite"),
        ({"violations": [Violation("I1", "a")]}, "VIOLATED I1: a"),
        ({"error": "b"}, "FAILED: b"),
        ({"error": "c", "not_run": True}, "NOT RUN: c"),
    ],
)
def test_a_row_that_proves_nothing_does_not_hold(change: dict[str, Any], verdict: str) -> None:
    """Its verdict says why."""
    result = replace(HOLDS, **change)
    assert (result.good, result.verdict) == (False, verdict)


async def test_a_row_whose_servers_are_gone_fails_alone(tmp_path: Path) -> None:
    """The rows behind it are played all the same."""
    result = await played(ROW, FaultStack(tmp_path), 1)
    assert (result.good, result.verdict) == (False, "FAILED: KeyError: 'postgres'")
