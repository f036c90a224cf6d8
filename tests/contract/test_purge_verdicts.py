"""Verdicts after a purge are those of the full past, as long as the horizon is one that the command accepts."""

import random

import pytest

from processor.io import purge
from processor.pure.purge import Limits, Widest, refusal
from tests.contract.decision_world import LONG_AGO, NOW, ORG, RealWorld, real_world, scratch
from tests.contract.filter_world import velocity
from tests.unit.simulation.truth import Truth, verdict_problems

__all__ = ["scratch"]
pytestmark = pytest.mark.contract
LATENESS = 400
FILTERS = {
    "inorganic": velocity("v1", threshold=2, window_ms=500),
    "inorganic_grouped": velocity("v1", threshold=6, window_ms=500, keep_first=True),
}
HORIZON = 2 * 500 + LATENESS
"""The least that is accepted."""
AS_SOON_AS_IT_OCCURRED = "UPDATE events SET received_at = occurred_at"
COUNT = "SELECT count(*) FROM events"


def test_the_horizon_of_these_tests_is_the_least_that_is_accepted() -> None:
    """One millisecond less is refused."""
    kept = {"retention.ms": "1", "cleanup.policy": "delete"}
    limits = Limits({"raw": kept}, Widest(ORG, "v1", 500), LATENESS, 1)
    assert refusal(HORIZON, limits) is None
    assert refusal(HORIZON - 1, limits)


@pytest.mark.parametrize("start", [LONG_AGO, NOW - 20_000], ids=["long ago", "now"])
@pytest.mark.parametrize("reason", FILTERS)
@pytest.mark.parametrize("seed", range(2))
async def test_verdicts_after_purges_are_those_of_the_whole_past(
    scratch: str, redis_url: str, seed: int, reason: str, start: int
) -> None:
    """Events up to `LATENESS` late, purges between any two batches, and a Redis that forgets."""
    chance = random.Random(seed)
    async with real_world(scratch, redis_url, LATENESS) as world:
        await world.filters(FILTERS[reason])
        truth, least = Truth("velocity,metadata"), 10**9
        for batch in range(40):
            newest = start + 300 * batch
            await _batch(world, truth, chance, batch, newest)
            await world.connection.execute(AS_SOON_AS_IT_OCCURRED)
            if chance.random() < 0.5:
                order = purge.Order(newest - HORIZON, "raw", (), "cli ann", {})
                await purge.purge(world.postgres, order, lambda org_unit, number: None, 20)
            if chance.random() < 0.3:
                await world.lose()
            least = min(least, await world.connection.fetchval(COUNT) - 10 * batch)
        assert least < -200, "nothing was purged"
        reasons = {judged.reason for judged in truth.judged.values()}
        assert reasons == {None, reason}


async def _batch(
    world: RealWorld, truth: Truth, chance: random.Random, batch: int, newest: int
) -> None:
    """Ten events, the last of them the newest by then; rows are checked as soon as they are stored."""
    events = [
        world.event(
            f"e{batch}-{n}",
            newest - chance.randrange(LATENESS),
            chance.choice("AABC"),
        )
        for n in range(10)
    ]
    rulings = await world.commit(*events)
    await world.write(rulings)
    for ruling in rulings:
        event = ruling.case.event
        truth.judge(event, event.lead_id, world.rulebook.rules)
        by = dict(ruling.suppressed_by or {})
        problems = verdict_problems(event.id, truth.judged[event.id], ruling.reason, by)
        assert not problems
