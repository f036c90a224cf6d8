"""Windows in Redis where it loses things: what is held is bounded, expires and is whole; what is absent is trusted only where it is empty."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis.asyncio

from processor.embedded import Stack
from processor.failures import Retryable
from processor.io.past import Past
from processor.io.postgres import Postgres
from processor.io.redis import Server
from processor.io.windows import OUTAGE_MS, Windows
from processor.io.windows_touched import window_of
from processor.ports import Reading
from processor.pure.types import Event, Ruling, Seen
from processor.pure.velocity import decide
from tests.contract.decision_world import (
    LONG_AGO,
    NOW,
    RealWorld,
    nothing,
    real_world,
    scratch,
)
from tests.contract.filter_world import velocity

__all__ = ["scratch"]
pytestmark = pytest.mark.contract
LATENESS = 500
W = 100
KEEP = W + LATENESS + OUTAGE_MS
MINUTE = 60_000
SENTINEL = "w1:{0}"


@pytest.fixture
async def world(scratch: str, redis_url: str) -> AsyncIterator[RealWorld]:
    """Nothing has happened; one filter watches page views."""
    async with real_world(scratch, redis_url, LATENESS) as world:
        await world.filters(watching())
        yield world


@pytest.fixture(scope="module")
def own_redis(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that only this module's tests use: what they do to it is not for others."""
    elsewhere = {"KAFKA_BOOTSTRAP_SERVERS": stack.kafka, "DATABASE_URL": stack.postgres}
    servers = Stack(tmp_path_factory.mktemp("redis"), elsewhere)
    servers.start()
    yield servers.redis
    servers.stop()


@pytest.fixture
async def alone(scratch: str, own_redis: str) -> AsyncIterator[RealWorld]:
    """As `world`, on the module's own Redis."""
    async with real_world(scratch, own_redis, LATENESS) as world:
        await world.redis.flushall()
        await world.filters(watching())
        yield world


@pytest.fixture
async def admin(own_redis: str) -> AsyncIterator["redis.asyncio.Redis"]:
    """A client of its own on the module's Redis."""
    client = redis.asyncio.Redis.from_url(own_redis)
    yield client
    await client.aclose()


def watching(threshold: int = 0, **more: Any) -> dict[str, Any]:
    """A velocity filter on page views."""
    return velocity(threshold=threshold, **{"window_ms": W, "keep_first": True, **more})


async def seen_by(world: RealWorld, at: int, **more: Any) -> Seen:
    """What a new event at that time would see."""
    (seen,) = await world.read(world.event("probe", at, **more))
    return seen


async def generation(world: RealWorld) -> bytes | None:
    """The generation in force."""
    found = await world.redis.hget(SENTINEL, "generation")
    assert not isinstance(found, str)
    return found


async def expiry(world: RealWorld) -> set[int]:
    """When the windows expire."""
    return {await world.redis.pexpiretime(key.decode()) for key in await world.sizes()}


async def built_for(world: RealWorld, at: int, lead_id: str = "A") -> bool:
    """Whether an absent window was built, rather than trusted to be empty, for an event at that time."""
    before = world.past.built
    await seen_by(world, at, lead_id=lead_id)
    return world.past.built > before


async def test_nothing_stored_leaves_an_absent_window_empty(world: RealWorld) -> None:
    """Postgres is not asked for a new lead."""
    assert not await built_for(world, NOW)
    assert await world.sizes()


async def test_a_window_that_had_another_name_is_built(world: RealWorld) -> None:
    """Versions up to 0.1.0 keep windows of leads whose ids end so under a name that is another lead's too."""
    assert await built_for(world, NOW, "A:x")
    assert not await built_for(world, NOW, "B:x:")


async def test_an_absent_window_is_built_up_to_the_newest_event_stored(world: RealWorld) -> None:
    """What Redis lost is not newer than what was stored when the sentinel was born."""
    await world.process(world.event("e", NOW, lead_id="other"))
    await world.lose()
    assert await built_for(world, NOW + W, "A")
    assert not await built_for(world, NOW + W + 1, "B")


async def test_events_stored_since_the_birth_make_no_absent_window_doubtful(
    world: RealWorld,
) -> None:
    """Their facts were written to windows that stand."""
    await seen_by(world, NOW)
    await world.process(world.event("e", NOW + 10 * W, lead_id="other"))
    assert not await built_for(world, NOW, "B")


async def test_an_absent_window_is_built_up_to_the_newest_event_older_than_its_filter(
    world: RealWorld,
) -> None:
    """Windows of a new filter hold nothing of the past, whoever lost what."""
    await seen_by(world, NOW)
    await world.process(world.event("e", NOW, lead_id="other"))
    await world.filters(watching(threshold=1))
    assert await built_for(world, NOW + W, "A")
    assert not await built_for(world, NOW + W + 1, "B")


async def test_an_absent_window_is_built_for_what_may_have_expired(world: RealWorld) -> None:
    """A window outlives its members by a day and its width at least; older ones may have been there."""
    now = await world.server.now()
    assert await built_for(world, now - OUTAGE_MS - MINUTE, "A")
    assert not await built_for(world, now - OUTAGE_MS + MINUTE, "B")


async def test_what_expired_is_missed_by_nobody_who_would_have_kept_it_longer(
    world: RealWorld,
) -> None:
    """It may have been written when less lateness was allowed."""
    now = await world.server.now()
    world.windows = Windows(world.server, world.past, LATENESS + 8 * 60 * MINUTE)
    assert await built_for(world, now - OUTAGE_MS - MINUTE)


async def test_a_window_outlives_each_of_its_members_by_what_is_kept(world: RealWorld) -> None:
    """Also where it was emptied, or its newest member came first; its bursts go when it goes."""
    await world.filters(watching(threshold=1))
    early = NOW + 50 * MINUTE
    for n, at in enumerate([early, NOW, NOW, NOW - 60 * MINUTE, early, NOW]):
        await world.process(world.event(f"e{n}", at))
        expiries = await expiry(world)
        assert len(expiries) == 1
        assert min(expiries) >= early + KEEP


async def test_a_calm_window_outlives_its_latest_member(world: RealWorld) -> None:
    """Adding to a window of few members is less work, but it lives on for each of them."""
    await world.filters(watching(threshold=10))
    for n, at in enumerate([NOW, NOW + 50 * MINUTE, NOW + 20 * MINUTE]):
        await world.process(world.event(f"e{n}", at))
    assert min(await expiry(world)) >= NOW + 50 * MINUTE + KEEP


async def test_a_window_begun_again_for_an_earlier_event_outlives_the_later_one_too(
    world: RealWorld,
) -> None:
    """Redis loses the window between the read that began it and the write, and another lane begins it."""
    await world.filters(watching(threshold=10))
    rulings, reading = await world.decided(world.event("later", NOW + 50 * MINUTE))
    await world.lose()
    await seen_by(world, NOW)
    await world.record(rulings)
    await world.windows.write(reading, [ruling.facts for ruling in rulings])
    assert min(await expiry(world)) >= NOW + 50 * MINUTE + KEEP


async def test_no_window_stays_for_ever(world: RealWorld) -> None:
    """Every key but the sentinel expires, also where a late event left a window with nothing."""
    await seen_by(world, NOW)
    for n, at in enumerate([LONG_AGO, LONG_AGO, NOW, LONG_AGO]):
        await world.process(world.event(f"e{n}", at))
        assert all([await world.redis.pttl(key) > 0 for key in await world.sizes()])


async def test_a_window_that_expired_is_built_again(world: RealWorld) -> None:
    """Its bursts are, too."""
    await world.process(world.event("e", LONG_AGO))
    for key in await world.sizes():
        await world.redis.pexpire(key, 0)
    assert (await seen_by(world, LONG_AGO)).burst_id == "e"


async def test_losing_everything_begins_a_generation(world: RealWorld) -> None:
    """Windows of the one before are never read again."""
    await world.process(world.event("e"))
    before = await generation(world)
    await world.lose()
    assert (await seen_by(world, LONG_AGO)).count == 1
    assert await generation(world) not in {before, None}


async def test_a_redis_that_others_stood_in_for_begins_again_when_it_is_come_back_to(
    world: RealWorld, alone: RealWorld
) -> None:
    """What was committed meanwhile is in none of its windows, also where it had none; one that was never left goes on."""
    await world.filters(watching(threshold=1, keep_first=False))
    await world.begin()
    await world.process(world.event("a1", NOW))
    first = await generation(world)
    await world.begin()
    assert await generation(world) == first
    elsewhere = await world.at(alone.server)
    await elsewhere.begin()
    for name in ("a2", "b1"):
        await elsewhere.process(world.event(name, NOW, lead_id=name[0].upper()))
    again = await world.another()
    await again.begin()
    events = [world.event(name, NOW + 1, lead_id=name[0].upper()) for name in ("a3", "b2")]
    assert await again.process(*events) == ["inorganic", "inorganic"]
    assert await generation(world) != first


async def test_a_redis_is_nothing_beside_a_postgres_that_knows_nothing_of_it(
    world: RealWorld,
) -> None:
    """Its windows are of events that nobody has stored."""
    await world.begin()
    await world.process(world.event("a1", NOW))
    await world.connection.execute("DELETE FROM window_generations")
    await world.begin()
    assert await generation(world) is None


async def test_another_history_begins_one_generation_for_all_workers(
    alone: RealWorld, admin: "redis.asyncio.Redis", own_redis: str
) -> None:
    """It may have lost what the one before had acknowledged, also behind connections that stand."""
    await alone.process(alone.event("e"))
    before = await generation(alone)
    await forget_members(alone)
    await become_another(admin)
    server = await Server.connect(own_redis)
    other = RealWorld(alone.postgres, alone.connection, server, alone.lateness_ms)
    other.rulebook, other.offset = alone.rulebook, 1_000_000
    assert (await seen_by(other, LONG_AGO)).count == 1
    born = await generation(alone)
    assert born != before
    for world in (alone, other, alone, other):
        assert (await seen_by(world, LONG_AGO)).count == 1
        assert await generation(world) == born
    await server.close()


async def forget_members(world: RealWorld) -> None:
    """As after a failover: windows look whole and are not."""
    for key in await world.sizes():
        await world.redis.zremrangebyrank(key, 1, -1)


async def recorded_unseen(world: RealWorld, *events: Event) -> list[Ruling]:
    """Rulings committed now by a batch that read no window: it did so before they were lost."""
    cases = await world.cases(*events)
    nothing = [[Seen(0, False, False, False, None)]] * len(cases)
    rulings = decide(cases, nothing, {}, world.rulebook.rules.revision)
    await world.record(rulings)
    return rulings


async def become_another(admin: "redis.asyncio.Redis") -> None:
    """The server takes a new replication history, as one does that was promoted or restored."""
    await admin.replicaof("127.0.0.1", 1)
    await admin.replicaof("no", "one")


async def test_a_server_restored_behind_a_connection_is_found_out_at_once(
    alone: RealWorld, admin: "redis.asyncio.Redis"
) -> None:
    """The call that finds the new connection was made for the server before."""
    await alone.process(alone.event("e"))
    await forget_members(alone)
    await become_another(admin)
    await admin.client_kill_filter(_type="normal", skipme=True)
    assert (await seen_by(alone, LONG_AGO)).count == 1


async def test_a_primary_that_was_a_replica_is_another_server(
    alone: RealWorld, admin: "redis.asyncio.Redis"
) -> None:
    """While it is one, windows are away; then what it holds is not what it held."""
    await alone.process(alone.event("e"))
    await admin.replicaof("127.0.0.1", 1)
    with pytest.raises(Retryable):
        await alone.process(alone.event("f"))
    assert ("acme", "f") not in await alone.stored()
    await become_another(admin)
    for key in await admin.keys("*[AB]"):
        await admin.zremrangebyrank(key, 1, -1)
    assert (await seen_by(alone, LONG_AGO)).count == 1


async def test_a_server_that_may_evict_windows_begins_no_generation(
    alone: RealWorld, admin: "redis.asyncio.Redis"
) -> None:
    """One that took over may be set up otherwise than the one that was asked at the start; it is waited for until it is mended."""
    await alone.process(alone.event("e"))
    await become_another(admin)
    await admin.config_set("maxmemory-policy", "volatile-lru")
    try:
        with pytest.raises(Retryable, match=r"may evict windows \(maxmemory-policy volatile-lru\)"):
            await alone.process(alone.event("f"))
    finally:
        await admin.config_set("maxmemory-policy", "noeviction")
    assert ("acme", "f") not in await alone.stored()
    assert (await seen_by(alone, LONG_AGO)).count == 1


async def test_scripts_that_are_flushed_are_loaded_again(world: RealWorld) -> None:
    """In the middle of a batch, too."""
    await world.process(world.event("e"))
    rulings = await world.commit(world.event("f"))
    await world.redis.script_flush()
    await world.write(rulings)
    await world.redis.script_flush()
    assert (await seen_by(world, LONG_AGO)).count == 1


async def test_a_write_makes_no_window(world: RealWorld) -> None:
    """Alone it says what is missing and leaves nothing."""
    rulings = await world.commit(world.event("e"))
    await world.lose()
    await seen_by(world, NOW, lead_id="B")
    before = await world.sizes()
    reading = Reading([ruling.case for ruling in rulings], ())
    facts = [ruling.facts for ruling in rulings]
    assert await world.windows._write(reading, facts) == {0}  # type: ignore[attr-defined]
    assert await world.sizes() == before


async def test_what_is_committed_while_a_window_is_built_is_in_it(world: RealWorld) -> None:
    """Its writer finds the window marked as being built, and adds to it."""
    await world.process(world.event("a"))
    other = await world.another()
    await world.lose()
    await seen_by(world, LONG_AGO, lead_id="B")

    async def meanwhile() -> None:
        await other.write(await recorded_unseen(other, other.event("b")))

    world.past.after_windows = meanwhile
    (a_again, b_again) = await world.read(world.event("a"), world.event("b"))
    assert (a_again.cached, b_again.cached) == (True, True)


async def test_two_may_build_a_window_at_once(world: RealWorld) -> None:
    """Whoever is first completes it; what was added since stays."""
    await world.process(world.event("a"))
    other = await world.another()
    await world.lose()

    async def meanwhile() -> None:
        assert (await seen_by(other, LONG_AGO)).count == 1
        await other.process(other.event("b"))

    world.past.after_windows = meanwhile
    before = world.past.built
    assert (await seen_by(world, LONG_AGO)).burst_id in {"a", "b"}
    assert world.past.built == before + 1


async def test_lanes_of_a_worker_build_a_window_once(world: RealWorld) -> None:
    """Who comes while it is built waits for it."""
    await world.process(world.event("a"))
    cases = await world.cases(world.event("b"))
    await world.lose()
    before = world.past.built
    async with asyncio.TaskGroup() as lanes:
        both = [lanes.create_task(world.windows.read(cases)) for _ in range(2)]
    assert [lane.result().seen[0][0].count for lane in both] == [1, 1]
    assert world.past.built == before + 1


async def test_a_lane_builds_a_window_that_another_one_fails_to_build(world: RealWorld) -> None:
    """It waits for it no longer than the other one tries."""
    await world.process(world.event("a"))
    cases = await world.cases(world.event("b"))
    await world.lose()

    async def fails() -> None:
        raise Retryable("postgres", "no answer")

    async def tried() -> int | str:
        try:
            return (await world.windows.read(cases)).seen[0][0].count
        except Retryable as failure:
            return failure.reason

    world.past.after_windows = fails
    async with asyncio.TaskGroup() as lanes:
        both = [lanes.create_task(tried()) for _ in range(2)]
    assert {lane.result() for lane in both} == {"no answer", 1}


async def test_a_window_lost_while_it_is_built_is_built_again(world: RealWorld) -> None:
    """What was read before the loss is thrown away."""
    await world.process(world.event("a"))
    other = await world.another()
    await world.lose()

    async def meanwhile() -> None:
        await world.lose()
        await other.process(other.event("b"))
        await world.lose()

    world.past.after_windows = meanwhile
    before = world.past.built
    assert (await seen_by(world, LONG_AGO)).burst_id is not None
    assert world.past.built == before + 2


async def test_windows_that_are_built_stay_so_where_others_fail(world: RealWorld) -> None:
    """However long it takes to build all that a batch needs, each try gets on."""
    events = [world.event(f"e{n}", lead_id=f"L{n}") for n in range(120)]
    await world.process(*events)
    await world.lose()
    before = world.past.built

    async def fails() -> None:
        raise Retryable("postgres", "no answer")

    async def then_fails() -> None:
        world.past.after_windows = fails

    world.past.after_windows = then_fails
    with pytest.raises(Retryable, match="no answer"):
        await world.read(*events)
    failed = world.past.built - before
    await world.read(*events)
    assert world.past.built - before - failed == 70


async def test_windows_lost_again_and_again_are_waited_for(world: RealWorld) -> None:
    """The lane backs off instead of spinning."""
    await world.process(world.event("a"))

    async def again() -> None:
        await world.lose()
        world.past.after_windows = again

    await again()
    with pytest.raises(Retryable, match="again and again"):
        await seen_by(world, LONG_AGO)


async def test_a_generation_does_not_take_over_what_was_read_before_it(world: RealWorld) -> None:
    """A sentinel lost while it is born: what was stored meanwhile by another is newer than what was read."""
    other = await world.another()

    async def meanwhile() -> None:
        await other.process(other.event("b", NOW))
        await world.lose()

    world.past.after_newest = meanwhile
    assert (await seen_by(world, NOW + 1)).burst_id == "b"


async def test_a_write_while_building_leaves_a_window_that_outlives_it(world: RealWorld) -> None:
    """The builder knows nothing of the later event."""
    await world.process(world.event("a"))
    other = await world.another()
    later = NOW + 40 * MINUTE
    await world.lose()

    async def meanwhile() -> None:
        await other.write(await recorded_unseen(other, other.event("b", later)))

    world.past.after_windows = meanwhile
    await seen_by(world, LONG_AGO)
    assert min(await expiry(world)) >= later + KEEP


@pytest.mark.parametrize(
    ("threshold", "width", "lateness"), [(0, W, LATENESS), (3, 7, LATENESS), (10, W, 0)]
)
async def test_windows_are_bounded_whatever_comes(
    scratch: str, redis_url: str, threshold: int, width: int, lateness: int
) -> None:
    """20,000 members in any order leave the first and last N + 1 of each slice that late events may reach."""
    async with real_world(scratch, redis_url, lateness) as world:
        await world.filters(watching(threshold=threshold, window_ms=width))
        r = random.Random(7)
        slices = -(-lateness // width) + 3
        bound = 2 * (threshold + 1) * slices + 1
        for n in range(10):
            times = [LONG_AGO + r.randrange(n * W, n * W + 3 * W + LATENESS) for _ in range(2_000)]
            await world.process(*(world.event(f"e{n}.{i}", t) for i, t in enumerate(times)))
            sizes = await world.sizes()
            assert max(size for key, size in sizes.items() if not key.endswith(b":x")) <= bound
            assert max(sizes.values()) <= max(bound, 2 * slices)


class HeardPostgres(Postgres):
    """Tells how many rows each statement was asked about, and lets something happen after the first."""

    asked: list[int]
    after_first: Callable[[], Awaitable[object]]

    async def fetch_by_keys(self, name: str, *args: Any) -> list[Any]:
        """As ever."""
        rows = await super().fetch_by_keys(name, *args)
        self.asked.append(len(args[0]))
        then, self.after_first = self.after_first, nothing
        await then()
        return rows


async def test_many_late_events_are_judged_in_parts_that_agree(world: RealWorld) -> None:
    """So that no statement takes too long; what is stored in between would count twice."""
    events = [world.event(f"e{n}", lead_id=f"L{n}") for n in range(450)]
    await world.process(*events[:10])
    cases = await world.cases(*events)
    touches = [(window_of(case, case.watching[0]), case.event) for case in cases]
    postgres = HeardPostgres(world.postgres._pool)
    postgres.asked, postgres.after_first = [], nothing
    seen, stored = await Past(postgres).around(touches, events)
    assert (stored, [count for count, _ in seen]) == (set(range(10)), [1] * 10 + [0] * 440)
    assert postgres.asked == [200, 200, 50]

    async def meanwhile() -> None:
        await world.process(events[20])

    postgres.after_first = meanwhile
    with pytest.raises(Retryable, match="stored while"):
        await Past(postgres).around(touches, events)
