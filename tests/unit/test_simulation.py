"""Thousands of schedules of the decision path on fakes, and proof that a wrong one would be found."""

import hypothesis
import pytest

from tests.unit.simulation import Run
from tests.unit.simulation_mutants import MUTANTS

SCHEDULES = 15 * hypothesis.settings().max_examples
"""1,500; fewer under the quick profile."""
PARTS = 8
ENOUGH = 600
"""Schedules within which each mutant is caught; nearly all are in the first dozen."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_gives_the_verdicts_of_the_order_of_commits(part: int) -> None:
    """Whatever crashed, woke up, was lost, changed or merged between any two steps."""
    for seed in range(part, SCHEDULES, PARTS):
        assert not Run(seed)().wrong(), seed


@pytest.mark.parametrize("name", MUTANTS)
def test_a_path_without_one_of_its_rules_is_found_wrong(name: str) -> None:
    """Else the schedules would prove nothing."""
    parts = MUTANTS[name]()
    assert any(is_wrong(Run(seed, parts)) for seed in range(ENOUGH))


def is_wrong(run: Run) -> bool:
    """Wrong verdicts, or none: a mutant may also fail in its own code."""
    try:
        return bool(run().wrong())
    except Exception:  # any failure is a difference
        return True
