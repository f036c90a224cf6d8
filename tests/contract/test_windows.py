"""What windows say of the committed past, over the fake and over Redis, one server or a cluster, with Postgres behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from processor.pure.types import Facts, Seen
from tests.contract.decision_world import (
    DAY,
    LONG_AGO,
    NOW,
    FakeWorld,
    World,
    real_world,
    scratch,
)
from tests.contract.filter_world import metadata, velocity
from tests.harness_cluster import Cluster

__all__ = ["scratch"]
pytestmark = pytest.mark.contract
LATENESS = 500
W = 100
YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999
TIMES = [LONG_AGO, NOW, 0, -1_000_000_007, YEAR_1 + 31 * DAY, YEAR_9999 - 31 * DAY]


def _redis(request: pytest.FixtureRequest) -> str:
    if request.param == "server":
        return str(request.getfixturevalue("redis_url"))
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.empty()
    return cluster.url


@pytest.fixture(params=["fake", "server", "cluster"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Nothing has happened; windows keep LATENESS."""
    if request.param == "fake":
        yield FakeWorld(LATENESS)
        return
    async with real_world(request.getfixturevalue("scratch"), _redis(request), LATENESS) as world:
        yield world


def watching(threshold: int = 3, **more: Any) -> dict[str, Any]:
    """A velocity filter on page views."""
    return velocity(threshold=threshold, **{"window_ms": W, **more})


async def counts(world: World, at: int, **more: Any) -> int:
    """What a new event at that time would count to, itself included; nothing stays of it."""
    seen = await seen_by(world, at, **more)
    return seen.count + 1


async def seen_by(world: World, at: int, **more: Any) -> Seen:
    """What a new event at that time would see, among so many that some of them exceed: else nobody looks."""
    probes = [world.event(f"probe{n}", at, **more) for n in range(12)]
    return (await world.read(*probes))[0]


@pytest.mark.parametrize("at", TIMES)
@pytest.mark.parametrize("lost", [False, True])
async def test_a_window_holds_what_is_less_than_its_width_before(
    world: World, at: int, lost: bool
) -> None:
    """(t − W, t], whatever the year, from Redis or built again from the rows."""
    await world.filters(watching(threshold=10))
    times = [at - 1, at, at + 1, at + W - 1, at + W]
    await world.process(*(world.event(f"e{n}", t) for n, t in enumerate(times)))
    if lost:
        await world.lose()
    asked = [at, at + 1, at + W - 1, at + W, at + W + 1, at + 2 * W]
    exact = [1 + sum(t - W < time <= t for time in times) for t in asked]
    assert [await counts(world, t) for t in asked] == exact


@pytest.mark.parametrize("lost", [False, True])
async def test_counts_are_exact_up_to_one_past_the_threshold(world: World, lost: bool) -> None:
    """What lies beyond is never needed."""
    await world.filters(watching(threshold=2))
    for n in range(6):
        await world.process(world.event(f"e{n}", LONG_AGO))
        if lost:
            await world.lose()
        assert await counts(world, LONG_AGO) >= min(n + 2, 3)
        assert await counts(world, LONG_AGO) <= n + 2


async def test_a_member_knows_that_it_is_one(world: World) -> None:
    """Else a redelivery would count twice."""
    await world.filters(watching(threshold=0))
    event = world.event("e")
    assert await world.read(event) == [Seen(0, False, False, False, None)]
    await world.process(event)
    (seen,) = await world.read(event)
    assert (seen.count, seen.cached, seen.from_store) == (1, True, False)


async def test_facts_may_be_written_again(world: World) -> None:
    """A redelivery, a retry or a suspended worker does it."""
    await world.filters(watching(threshold=5, keep_first=True))
    rulings = await world.commit(world.event("a"), world.event("b"))
    for _ in range(3):
        await world.write(rulings)
    assert await counts(world, LONG_AGO) == 3


async def test_facts_that_never_arrived_arrive_with_the_redelivery(world: World) -> None:
    """The worker died between the commit and the write; the window stood and knew nothing."""
    await world.filters(watching(threshold=5))
    await world.process(world.event("a"))
    late = world.event("b")
    await world.commit(late)
    assert await counts(world, LONG_AGO) == 2
    await world.process(late)
    assert await counts(world, LONG_AGO) == 3


@pytest.mark.parametrize("at", [LONG_AGO, NOW])
async def test_what_is_lost_before_a_write_is_found_again(world: World, at: int) -> None:
    """Between read and commit, and between commit and write: no window looks whole that is not."""
    await world.filters(watching(threshold=9))
    await world.process(world.event("a", at))
    rulings = await world.decide(world.event("b", at))
    await world.lose()
    await world.record(rulings)
    await world.lose()
    await world.write(rulings)
    assert await counts(world, at + 1) == 3


async def test_a_write_without_a_read_loses_nothing(world: World) -> None:
    """A worker that slept through a loss still only adds to windows that hold everything."""
    await world.filters(watching(threshold=9))
    await world.process(world.event("a"))
    await world.commit(world.event("b"))
    rulings = await world.commit(world.event("c"))
    await world.lose()
    await world.write(rulings)
    assert await counts(world, LONG_AGO) == 4


async def test_an_event_too_late_for_windows_is_judged_from_the_rows(world: World) -> None:
    """It is exact there too: members, itself, and the burst near it."""
    await world.filters(watching(threshold=1, keep_first=True))
    await world.process(*(world.event(f"e{n}", LONG_AGO + n) for n in range(3)))
    await world.process(world.event("new", LONG_AGO + 10 * LATENESS))
    await world.lose()
    newest = world.event("newest", LONG_AGO + 10 * LATENESS)
    late = world.event("late", LONG_AGO + 50)
    _, seen = await world.read(newest, late)
    assert (seen.from_store, seen.stored, seen.count, seen.burst_id) == (True, False, 2, "e1")
    assert await world.process(newest, late) == [None, "inorganic_grouped"]
    _, again = await world.read(newest, late)
    assert (again.from_store, again.stored, again.burst_id) == (True, True, "e1")


async def test_late_events_of_a_batch_count_each_other(world: World) -> None:
    """Also those that Redis holds for its newer events."""
    await world.filters(watching(threshold=2))
    await world.process(world.event("new", LONG_AGO + 10 * LATENESS))
    await world.lose()
    batch = [world.event(f"e{n}", LONG_AGO + n) for n in range(4)]
    batch.insert(0, world.event("newer", LONG_AGO + 10 * LATENESS))
    assert await world.process(*batch) == [None, None, None, "inorganic", "inorganic"]


@pytest.mark.parametrize("lost", [False, True])
async def test_a_burst_reaches_less_than_a_window_to_both_sides(world: World, lost: bool) -> None:
    """And an event is never near itself."""
    await world.filters(watching(threshold=0, keep_first=True))
    burst = world.event("burst")
    assert await world.process(burst) == [None]
    if lost:
        await world.lose()
    near = {d: (await seen_by(world, LONG_AGO + d)).burst_id for d in (-W, 1 - W, 0, W - 1, W)}
    assert near == {-W: None, 1 - W: "burst", 0: "burst", W - 1: "burst", W: None}
    (itself,) = await world.read(burst)
    assert itself.burst_id is None


@pytest.mark.parametrize("lost", [False, True])
async def test_members_of_a_burst_carry_its_id(world: World, lost: bool) -> None:
    """The id is that of the first one, however far the burst has gone since."""
    await world.filters(watching(threshold=0, keep_first=True))
    for n in range(4):
        (ruling,) = await world.commit(world.event(f"e{n}", LONG_AGO + n * (W - 1)))
        await world.write([ruling])
        assert list(ruling.facts.exceeded.values()) == ["e0"]
        if lost:
            await world.lose()
    assert (await seen_by(world, LONG_AGO + 3 * W)).burst_id == "e0"


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("tail", [":x", ":", ":x:x", "\x1f", "\n"])
async def test_no_window_is_another_leads_exceeding_events(
    world: World, tail: str, lost: bool
) -> None:
    """However a lead's id goes on where that of another one ends."""
    await world.filters(watching(threshold=1, keep_first=True))
    longer = f"A{tail}"
    assert await world.process(world.event("c0", LONG_AGO - 2 * W, lead_id=longer)) == [None]
    assert await world.process(world.event("d0"), world.event("d1")) == [None, None]
    if lost:
        await world.lose()
    after = [world.event(f"c{n}", LONG_AGO + n, lead_id=longer) for n in (1, 2, 3)]
    assert await world.process(*after) == [None, None, "inorganic_grouped"]
    assert await world.process(world.event("d2", LONG_AGO + 3)) == ["inorganic_grouped"]


async def test_windows_are_told_apart(world: World) -> None:
    """By org unit, lead and event type."""
    await world.filters(watching(), velocity("other", event_type="form_submit", window_ms=W))
    await world.filters(watching(), org_unit="other")
    await world.process(world.event("e"), world.event("e", org_unit="other"))
    assert await counts(world, LONG_AGO) == 2
    assert await counts(world, LONG_AGO, org_unit="other") == 2
    assert await counts(world, LONG_AGO, lead_id="B") == 1
    assert await counts(world, LONG_AGO, event_type="Form Submit") == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_filters_of_one_file_have_their_own_windows(world: World, lost: bool) -> None:
    """Thresholds, widths, bursts: none is the other's, on one type or on two."""
    wide = velocity("a-wide", threshold=2, window_ms=10 * W, keep_first=True)
    narrow = velocity("b-narrow", threshold=0, window_ms=W, keep_first=True)
    form = velocity("c-form", threshold=0, window_ms=W, event_type="form_submit", keep_first=True)
    await world.filters(wide, narrow, form)
    for n in range(4):
        (ruling,) = await world.commit(world.event(f"e{n}", LONG_AGO + 2 * n * W))
        await world.write([ruling])
        said = list(ruling.facts.exceeded.values())
        assert said == ([f"e{n}"] if n < 2 else ["e2", f"e{n}"])
        if lost:
            await world.lose()
    (other,) = await world.commit(world.event("f0", LONG_AGO, event_type="Form Submit"))
    assert list(other.facts.exceeded.values()) == ["f0"]


@pytest.mark.parametrize("at", [LONG_AGO, NOW])
async def test_a_new_keep_first_filter_starts_from_the_stored_past(world: World, at: int) -> None:
    """As if it had always been there: in processing order, with the bursts it would have found."""
    times = [0, 10, 20, 30, 30 + W - 1, 5 * W, 3 * W, 3 * W + 1, 3 * W + 2]
    for n, t in enumerate(times):
        await world.process(world.event(f"e{n}", at + t))
    await world.filters(watching(threshold=1, keep_first=True))
    near = {t: (await seen_by(world, at + t * W)).burst_id for t in range(-1, 6)}
    assert near == {-1: None, 0: "e1", 1: "e1", 2: "e1", 3: "e7", 4: "e7", 5: None}


async def test_a_new_filter_knows_the_past_of_late_events_too(world: World) -> None:
    """The rows below what its windows keep are folded as well."""
    for n in range(3):
        await world.process(world.event(f"e{n}", LONG_AGO + n))
    await world.process(world.event("new", LONG_AGO + 10 * LATENESS))
    await world.filters(watching(threshold=1, keep_first=True))
    newest = world.event("newest", LONG_AGO + 10 * LATENESS)
    _, seen = await world.read(newest, world.event("late", LONG_AGO + 50))
    assert (seen.from_store, seen.count, seen.burst_id) == (True, 2, "e1")


async def test_redelivered_rows_older_than_a_filter_keep_its_past(world: World) -> None:
    """Their facts say nothing of the filter; the fold over the past does."""
    past = [world.event(f"e{n}", LONG_AGO + n) for n in range(3)]
    rulings = await world.commit(*past)
    await world.filters(watching(threshold=1, keep_first=True))
    cases = await world.cases(*past)
    reading = await world.windows.read(cases)
    await world.windows.write(reading, [ruling.facts for ruling in rulings])
    assert await world.process(world.event("next", LONG_AGO + 5)) == ["inorganic_grouped"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("steps", "lead", "burst"),
    [
        ("a1 b1 filter merge", "A", None),
        ("a1 b1 merge filter", "A", None),
        ("merge a1 b1 filter", "A", "b1"),
        ("merge a1 b1 filter unmerge", "B", "b1"),
        ("merge a1 b1 filter unmerge", "A", None),
        ("merge a1 b1 unmerge filter", "B", "b1"),
        ("a1 merge b1 unmerge merge filter", "A", "b1"),
        ("merge unmerge a1 b1 merge filter", "A", None),
        ("merge a1 unmerge b1 filter merge", "A", None),
    ],
)
async def test_what_is_older_than_a_filter_is_judged_among_the_leads_that_were_one_when_it_came(
    world: World, steps: str, lead: str, burst: str | None, late: bool
) -> None:
    """Whenever leads were merged or parted, and the filter made: verdicts are never revised, nor are those that it would have given."""
    if late:
        for other in "AB":
            await world.process(world.event(f"new-{other}", LONG_AGO + 9 * LATENESS, lead_id=other))
    happen: dict[str, Callable[[], Awaitable[object]]] = {
        "a1": lambda: world.process(world.event("a1")),
        "b1": lambda: world.process(world.event("b1", LONG_AGO + W // 2, lead_id="B")),
        "filter": lambda: world.filters(watching(threshold=1, keep_first=True)),
        "merge": lambda: world.merge("A", "B"),
        "unmerge": lambda: world.unmerge("A", "B"),
    }
    for step in steps.split():
        await happen[step]()
    probes = [world.event(f"probe{n}", LONG_AGO + W - 1, lead_id=lead) for n in range(3)]
    newest = world.event("newest", LONG_AGO + 9 * LATENESS + 1, lead_id=lead)
    *_, seen = await world.read(*([newest] if late else []), *probes)
    assert (seen.from_store, seen.burst_id) == (late, burst)


@pytest.mark.parametrize("at", [LONG_AGO, NOW])
async def test_a_merge_unites_windows(world: World, at: int) -> None:
    """Members and bursts of all leads of the class, in an epoch of their own that is always built."""
    await world.filters(watching(threshold=1, keep_first=True))
    await world.process(*(world.event(f"a{n}", at + n) for n in range(2)))
    await world.process(world.event("b0", at + W, lead_id="B"))
    await world.merge("B", "A")
    for lead in ("A", "B"):
        seen = await seen_by(world, at + W, lead_id=lead)
        assert (seen.count, seen.burst_id) == (2, "a1")
    far = await seen_by(world, at + 50 * W, lead_id="A")
    assert (far.count, far.burst_id) == (0, None)
    await world.process(world.event("c", at + W, lead_id="A"))
    assert (await seen_by(world, at + W, lead_id="B")).count == 2


@pytest.mark.parametrize("lost", [False, True])
async def test_a_deleted_event_goes_on_counting(world: World, lost: bool) -> None:
    """A machine that keeps firing stays suppressed."""
    await world.filters(watching())
    await world.process(world.event("e"))
    await world.delete("e")
    if lost:
        await world.lose()
    assert await counts(world, LONG_AGO) == 2


async def test_an_event_that_entered_no_window_is_in_none_that_is_built(world: World) -> None:
    """Its row says that it was not counted, whatever filters say later."""
    await world.filters(watching(), metadata("mf", "bot"))
    rulings = await world.decide(world.event("bot", metadata={"k": "bot"}))
    assert rulings[0].reason == "metadata_filter"
    uncounted = Facts(counted=False, rules=rulings[0].facts.rules, exceeded={})
    await world.record([replace(rulings[0], facts=uncounted)])
    await world.lose()
    assert await counts(world, LONG_AGO) == 1


@pytest.mark.parametrize("lost", [False, True])
async def test_a_threshold_of_nothing_makes_every_event_exceed(world: World, lost: bool) -> None:
    """The first is one too many."""
    await world.filters(watching(threshold=0))
    for n in range(2):
        assert await world.process(world.event(f"e{n}", LONG_AGO + n * 2 * W)) == ["inorganic"]
        if lost:
            await world.lose()


@pytest.mark.parametrize("lost", [False, True])
async def test_the_widest_window_counts_to_the_highest_threshold(world: World, lost: bool) -> None:
    """30 days and 10,000 events: one more is too many."""
    await world.filters(velocity(threshold=10_000, window_ms=30 * DAY))
    step = 30 * DAY // 10_001
    events = [world.event(f"e{n}", LONG_AGO + n * step) for n in range(9_998)]
    assert not any(await world.process(*events))
    if lost:
        await world.lose()
    last = LONG_AGO + 9_998 * step
    reasons = await world.process(*(world.event(f"l{n}", last) for n in range(3)))
    assert reasons == [None, None, "inorganic"]
    assert await counts(world, LONG_AGO + 30 * DAY) == 10_001
