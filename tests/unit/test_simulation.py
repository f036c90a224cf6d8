"""Thousands of schedules of whole workers on fake systems, and proof that a wrong one would be found, and told shortly."""

import gc
import logging
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.unit.simulation.mutants import MUTANTS
from tests.unit.simulation.shrink import Failing, Search, again, schedule
from tests.unit.simulation.stores import Parts
from tests.unit.simulation.traffic import World

SCHEDULES = 30 * hypothesis.settings().max_examples
"""3,000; fewer under the quick profile."""
PARTS = 15
ENOUGH = 600
"""Schedules within which each mutant is caught; nearly all are in the first dozen."""
SHORT = 25
"""Lines that say what happens."""
TOLD = (
    "no worker fences another",
    "the offset is committed outside of the transaction",
    "the mover remembers where to",
)


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """What workers log nobody reads, and cycles are looked for as rarely as workers themselves do."""
    before = structlog.get_config() if structlog.is_configured() else None
    thresholds = gc.get_threshold()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    gc.set_threshold(50_000, 50, 100)
    yield
    gc.set_threshold(*thresholds)
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_schedule_stores_publishes_and_moves_everything_as_it_must_be(part: int) -> None:
    """Whatever crashed, hung, was given to others, was lost, changed or merged between any two steps."""
    for seed in range(part, SCHEDULES, PARTS):
        failing = schedule(seed)
        if failing is not None:
            pytest.fail(f"seed {seed}, at its shortest: {Search(failing)()}", pytrace=False)


def test_every_path_that_is_to_be_found_wrong_can_be_made() -> None:
    """Of the text as it is now; to follow them all takes long."""
    assert all(isinstance(make(), Parts) for make in MUTANTS.values())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_path_without_one_of_its_rules_is_found_wrong(name: str) -> None:
    """Else the schedules would prove nothing."""
    parts = MUTANTS[name]()
    assert any(schedule(seed, parts) is not None for seed in range(ENOUGH))


@pytest.mark.parametrize("name", TOLD)
def test_a_failing_schedule_of_a_path_without_one_of_its_rules_is_told_shortly(name: str) -> None:
    """What is left of hundreds of messages and steps is a few, still fails, and is printed in lines that can be read."""
    parts = MUTANTS[name]()
    found = (schedule(seed, parts) for seed in range(ENOUGH))
    long = next(one for one in found if one is not None and one.size > 200)
    short = Search(long, parts)()
    assert again(short.world, short.steps, parts) == short
    assert short.size <= SHORT
    assert all(line in str(short) for line in (*short.lines, "from here on all goes well"))


def test_a_schedule_is_told_with_what_was_sent_what_happened_and_what_is_wrong() -> None:
    """In this order."""
    told = str(Failing(World(()), (), ("worker 1 dies, worker 3 starts",), (("e1", "is lost"),)))
    assert told.splitlines() == [
        "exactly once, workers: 2",
        "  worker 1 dies, worker 3 starts",
        "  from here on all goes well",
        "wrong:",
        "  ('e1', 'is lost')",
    ]
