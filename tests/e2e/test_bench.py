"""`processor bench` on real servers: the worker is right, and whoever is not is found out."""

import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from processor.bench import sent
from processor.bench.contenders import AT_LEAST_ONCE, EXACTLY_ONCE, FLOOR, Kind
from processor.bench.runs import Bench
from processor.bench.traffic import verdicts
from processor.embedded import Stack
from processor.failures import Failure
from tests.bench.bounded import LEVELS
from tests.bench.bounds import BOUNDS, Bounds

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
EVENTS = 3_000


@pytest.fixture
def bench(stack: Stack, tmp_path: Path) -> Bench:
    """A backlog of its own."""
    return Bench(stack, tmp_path, sent(EVENTS), f"bench-{secrets.token_hex(4)}")


async def test_floor_and_worker_take_turns_and_do_nothing_wrong(bench: Bench) -> None:
    """Over the same messages, each on a site of its own."""
    (done,) = await bench.rounds((FLOOR, EXACTLY_ONCE, AT_LEAST_ONCE), 1)
    assert [*done] == ["floor", "exactly_once", "at_least_once"]
    assert [result.wrong for result in done.values()] == [0, 0, 0]
    assert all(result.cpu["worker"] > 0 for result in done.values())


async def test_bounds_store_and_publish_every_event(stack: Stack, tmp_path: Path) -> None:
    """Else what they show would be less than the contract takes."""
    bench = Bounds(stack, tmp_path, sent(EVENTS), f"bench-{secrets.token_hex(4)}")
    (done,) = await bench.rounds(BOUNDS, 1)
    assert {name: result.wrong for name, result in done.items()} == dict.fromkeys(LEVELS, 0)


async def test_whoever_gives_no_verdicts_is_found_out(bench: Bench) -> None:
    """The floor, measured as if it promised some: each verdict that is missing counts in Postgres and in the topic."""
    liar = replace(FLOOR, name="liar", kind=Kind.RIVAL)
    (done,) = await bench.rounds((liar,), 1)
    suppressed = [one for one, reason in verdicts(sent(EVENTS)).items() if reason]
    assert done["liar"].wrong == 2 * len(suppressed)


async def test_a_contender_that_ends_by_itself_is_a_failure_that_says_what_it_wrote(
    bench: Bench,
) -> None:
    """Its output is the reason."""
    broken = replace(EXACTLY_ONCE, environment={"FILTER_ORDER": "sideways"})
    with pytest.raises(Failure, match="FILTER_ORDER"):
        await bench.rounds((broken,), 1)


def test_each_step_of_a_worker_is_told_with_its_share() -> None:
    """Of all that a batch takes, and what they are together."""
    command = [sys.executable, "-m", "tests.bench", "steps", "--events", "6000"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    steps = {
        name.strip(): float(micros)
        for _, name, micros, *_ in (line.split("|") for line in told[2:])
    }
    whole = steps.pop("all")
    assert {"parse", "triage", "decide", "enriched messages"} < steps.keys()
    assert sum(steps.values()) == pytest.approx(whole, abs=0.1)
