"""Windows in a cluster: what a node loses, is away, hands over or has handed over to it changes no answer."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import pytest
from redis.crc import key_slot

from processor.failures import Retryable, StartRefused
from processor.io.redis import Server
from processor.io.windows_touched import shard_of
from processor.pure.types import Seen
from tests.contract.decision_world import LONG_AGO, NOW, RealWorld, real_world, scratch
from tests.contract.filter_world import velocity
from tests.harness import until
from tests.harness_cluster import Cluster
from tests.harness_secured import command_of, user_of

__all__ = ["scratch"]
pytestmark = [pytest.mark.contract, pytest.mark.fault]
T = TypeVar("T")
LATENESS = 500
W = 100


@pytest.fixture
async def world(scratch: str, cluster: Cluster) -> AsyncIterator[RealWorld]:
    """Nothing has happened; one filter watches page views."""
    cluster.whole()
    cluster.empty()
    async with real_world(scratch, cluster.url, LATENESS) as world:
        await world.filters(velocity(threshold=0, window_ms=W, keep_first=True))
        yield world


def tag_of(world: RealWorld, lead_id: str) -> str:
    """The hash tag of a lead's shard."""
    tags = world.server.tags
    return tags[shard_of("acme", lead_id, len(tags))]


def lead_on(world: RealWorld, cluster: Cluster, node: str) -> str:
    """A lead whose windows a node has."""
    leads = (f"L{n}" for n in range(1_000))
    return next(lead for lead in leads if cluster.owner(tag_of(world, lead)) == node)


def sentinel(world: RealWorld, lead_id: str) -> str:
    """What tells of the generation of a lead's shard."""
    return f"w1:{{{tag_of(world, lead_id)}}}"


def generation(world: RealWorld, cluster: Cluster, lead_id: str) -> bytes:
    """The generation in force for a lead."""
    node = cluster.owner(tag_of(world, lead_id))
    return bytes(cluster.ask(node, "HGET", sentinel(world, lead_id), "generation"))


async def seen_by(world: RealWorld, lead_id: str, at: int = LONG_AGO) -> Seen:
    """What a new event of a lead would see."""
    (seen,) = await world.read(world.event("probe", at, lead_id=lead_id))
    return seen


async def in_the_end(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, however often it takes to be asked for as lanes do."""

    async def asked() -> list[T]:
        try:
            return [await ask()]
        except Retryable:
            return []

    return (await until(asked, 30))[0]


async def test_windows_of_every_lead_are_where_its_shard_is(
    world: RealWorld, cluster: Cluster
) -> None:
    """All nodes have some."""
    await world.process(*(world.event(f"e{n}", lead_id=f"L{n}") for n in range(200)))
    for node in cluster.primaries():
        windows = {key for key in cluster.ask(node, "KEYS", "*") if b"acme" in key}
        leads = {key.rpartition(b"\0")[2].removesuffix(b":x").decode() for key in windows}
        assert leads == {
            f"L{n}" for n in range(200) if cluster.owner(tag_of(world, f"L{n}")) == node
        }


async def test_a_node_that_forgets_everything_costs_its_own_shards_alone(
    world: RealWorld, cluster: Cluster
) -> None:
    """Their windows are built again; the others still are what they were."""
    leads = {node: lead_on(world, cluster, node) for node in cluster.primaries()}
    await world.process(*(world.event(lead, lead_id=lead) for lead in leads.values()))
    before = {node: generation(world, cluster, lead) for node, lead in leads.items()}
    lost, *_ = leads
    cluster.ask(lost, "FLUSHALL")
    built = world.past.built
    assert [(await seen_by(world, lead)).count for lead in leads.values()] == [1] * len(leads)
    assert world.past.built == built + 1
    after = {node: generation(world, cluster, lead) for node, lead in leads.items()}
    assert {node for node in leads if after[node] != before[node]} == {lost}


async def test_a_shard_begins_again_without_trusting_what_the_others_have_seen_since(
    world: RealWorld, cluster: Cluster
) -> None:
    """What is stored when a sentinel is born again makes absent windows of its shard doubtful, and no others."""
    one, two, *_ = (lead_on(world, cluster, node) for node in cluster.primaries())
    await seen_by(world, one)
    await seen_by(world, two)
    await world.process(world.event("e", NOW, lead_id=one))
    cluster.ask(cluster.owner(tag_of(world, one)), "FLUSHALL")
    assert (await seen_by(world, one, NOW)).count == 1
    built = world.past.built
    assert (await seen_by(world, two, NOW)).count == 0
    assert world.past.built == built


async def test_a_write_to_a_node_that_forgot_everything_loses_nothing(
    world: RealWorld, cluster: Cluster
) -> None:
    """Between read and commit, and between commit and write, on one node after the other."""
    leads = [lead_on(world, cluster, node) for node in cluster.primaries()]
    await world.process(*(world.event(f"a{lead}", lead_id=lead) for lead in leads))
    rulings = await world.decide(*(world.event(f"b{lead}", lead_id=lead) for lead in leads))
    cluster.ask(cluster.owner(tag_of(world, leads[0])), "FLUSHALL")
    await world.record(rulings)
    cluster.ask(cluster.owner(tag_of(world, leads[1])), "FLUSHALL")
    await world.write(rulings)
    assert [(await seen_by(world, lead)).count for lead in leads] == [1, 1, 1]  # enough to exceed
    assert [(await seen_by(world, lead)).burst_id for lead in leads] == [f"a{x}" for x in leads]


async def test_scripts_that_one_node_does_not_know_are_sent_there_alone(
    world: RealWorld, cluster: Cluster
) -> None:
    """In the middle of a batch."""
    leads = [lead_on(world, cluster, node) for node in cluster.primaries()]
    await world.process(*(world.event(lead, lead_id=lead) for lead in leads))
    cluster.ask(cluster.primaries()[0], "SCRIPT", "FLUSH")
    assert [(await seen_by(world, lead)).count for lead in leads] == [1, 1, 1]


@pytest.mark.timeout(120)
async def test_windows_of_a_node_that_is_away_are_waited_for(
    world: RealWorld, cluster: Cluster
) -> None:
    """Nothing is stored meanwhile; it comes back with nothing, and everything is built again."""
    node = next(n for n in cluster.primaries() if cluster.replicas(n) == 0)
    lead = lead_on(world, cluster, node)
    await world.process(world.event("a", lead_id=lead))
    cluster.kill(node)
    with pytest.raises(Retryable, match="redis"):
        await world.process(world.event("b", lead_id=lead))
    assert ("acme", "b") not in await world.stored()
    cluster.revive(node)
    cluster.whole()
    seen = await in_the_end(lambda: seen_by(world, lead))
    assert (seen.count, seen.burst_id) == (1, "a")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_replica_that_takes_over_is_another_server(
    world: RealWorld, cluster: Cluster, how: signal.Signals
) -> None:
    """It may lack what was acknowledged: here it lacks every member."""
    node = next(n for n in cluster.primaries() if cluster.replicas(n))
    lead = lead_on(world, cluster, node)
    await world.process(world.event("a", lead_id=lead))
    heir = cluster.in_step(node)
    before = generation(world, cluster, lead)
    cluster.kill(node, how)
    await until(lambda: cluster.is_primary(heir), 20)
    for key in cluster.keys(heir, key_slot(tag_of(world, lead).encode())):
        if key.endswith(b":x") or b"acme" in key:
            cluster.ask(heir, "ZREMRANGEBYRANK", key, 1, -1)
    seen = await in_the_end(lambda: seen_by(world, lead))
    assert (seen.count, seen.burst_id) == (1, "a")
    assert generation(world, cluster, lead) != before
    await world.process(world.event("b", lead_id=lead))
    if how == signal.SIGSTOP:
        cluster.kill(node, signal.SIGCONT)
    else:
        cluster.revive(node)
    cluster.whole()
    again = world.event("b", lead_id=lead)
    (found,) = await in_the_end(lambda: world.read(again))
    assert found.cached


async def slot_of(world: RealWorld, cluster: Cluster, lead: str) -> tuple[int, str, str]:
    """The slot of a lead, its node, and another one."""
    tag = tag_of(world, lead)
    source = cluster.owner(tag)
    return key_slot(tag.encode()), source, next(n for n in cluster.primaries() if n != source)


@pytest.mark.timeout(120)
async def test_a_slot_may_move_key_by_key_while_its_leads_have_events(
    world: RealWorld, cluster: Cluster
) -> None:
    """Nobody trusts a window to be empty that is only elsewhere: until the sentinel has moved they wait, then they begin again.

    One of the two has no more rights than the runbook gives it.
    """
    lead = "L1"
    for node in cluster.primaries():
        cluster.ask(node, *command_of("ACL SETUSER worker").split())
    server = await Server.connect(user_of(cluster.url, "worker"))
    other = RealWorld(world.postgres, world.connection, server, world.lateness_ms)
    other.rulebook, other.offset = world.rulebook, 1_000_000
    await world.process(world.event("a", NOW, lead_id=lead))
    await seen_by(other, lead, NOW)
    slot, source, target = await slot_of(world, cluster, lead)
    before = generation(world, cluster, lead)
    windows = [key for key in cluster.keys(source, slot) if b"acme" in key]
    cluster.moving(slot, source, target)
    cluster.move(windows, source, target)
    with pytest.raises(Retryable):
        await seen_by(world, lead, NOW)
    cluster.move([sentinel(world, lead).encode()], source, target)
    await goes_on((world, other), lead, NOW + 1)
    left = cluster.keys(source, slot)
    if left:
        cluster.move(left, source, target)
    cluster.moved(slot, target)
    await goes_on((other, world), lead, NOW + 3)
    assert generation(world, cluster, lead) != before
    await server.close()


async def goes_on(worlds: Sequence[RealWorld], lead_id: str, since: int) -> None:
    """Each of the workers sees the burst of event `a`, and what it adds itself, one after the other."""
    for at, world in enumerate(worlds, since):
        seen = await in_the_end(partial(seen_by, world, lead_id, NOW))
        assert seen.burst_id == "a"
        event = world.event(f"b{at}", at, lead_id=lead_id)
        await world.process(event)
        (found,) = await world.read(event)
        assert found.cached


@pytest.mark.timeout(120)
async def test_a_slot_may_move_whole(world: RealWorld, cluster: Cluster) -> None:
    """Its new node is another server, whatever it was given."""
    lead = "L2"
    await world.process(world.event("a", lead_id=lead))
    before = generation(world, cluster, lead)
    cluster.move_whole(*await slot_of(world, cluster, lead))
    assert (await in_the_end(lambda: seen_by(world, lead))).burst_id == "a"
    assert generation(world, cluster, lead) != before
    await world.process(world.event("b", lead_id=lead))


async def test_a_window_that_is_built_while_its_slot_begins_to_move_never_looks_whole(
    world: RealWorld, cluster: Cluster
) -> None:
    """The script that fills it is ended by a key that is not there; then the slot stays where it was, after all."""
    lead = "L3"
    await world.process(
        world.event("a", lead_id=lead), world.event("b", LONG_AGO + 1, lead_id=lead)
    )
    slot, source, target = await slot_of(world, cluster, lead)
    await world.lose()
    await seen_by(world, "L4")

    async def meanwhile() -> None:
        cluster.moving(slot, source, target)

    world.past.after_windows = meanwhile
    with pytest.raises(Retryable):
        await seen_by(world, lead)
    cluster.stays(slot, source, target)
    assert (await in_the_end(lambda: seen_by(world, lead))).burst_id == "a"


def elsewhere(cluster: Cluster, servers: str) -> str:
    """The URL with other servers."""
    login, _, _ = cluster.url.rpartition("@")
    return f"{login}@{servers}"


async def test_one_node_that_answers_is_enough_for_a_start(cluster: Cluster) -> None:
    """Wherever it is named."""
    node = f"127.0.0.1:{cluster.port(cluster.primaries()[0])}"
    for servers in (f"127.0.0.1:1,{node}", f"{node},127.0.0.1:1/0", node):
        server = await Server.connect(elsewhere(cluster, servers))
        assert len(server.tags) == 64
        assert len(await server.nodes()) == 3
        await server.close()


@pytest.mark.parametrize(
    ("servers", "said"),
    [("127.0.0.1:1,127.0.0.1:2", "ConnectionError"), ("{node}/1", "DB index is out of range")],
)
async def test_a_cluster_that_cannot_be_used_is_refused(
    cluster: Cluster, servers: str, said: str
) -> None:
    """No node answers, or none has the database."""
    node = f"127.0.0.1:{cluster.port(cluster.primaries()[0])}"
    with pytest.raises(StartRefused, match=f"cannot use Redis: .*{said}.*; check REDIS_URL"):
        await Server.connect(elsewhere(cluster, servers.format(node=node)))


async def test_several_servers_that_are_no_cluster_are_refused(redis_url: str) -> None:
    """Each of them would have windows of its own."""
    login, _, server = redis_url.rpartition("@")
    address = server.partition("/")[0]
    with pytest.raises(StartRefused, match="is of none"):
        await Server.connect(f"{login}@{address},{address}/0")


async def test_one_server_that_a_cluster_stood_in_for_begins_again(
    world: RealWorld, redis_url: str
) -> None:
    """A shard of the cluster has the tag of the server's only one, which is another shard all the same."""
    await world.filters(velocity(threshold=2, window_ms=W))
    server = await Server.connect(redis_url)
    await (await world.at(server)).lose()
    assert ("0" in world.server.tags, tag_of(world, "A") != "0") == (True, True)
    reasons = []
    for name, used in (("a", server), ("b", world.server), ("c", server)):
        turn = await world.at(used)
        await turn.begin()
        reasons += await turn.process(world.event(name, NOW))
    assert reasons == [None, None, "inorganic"]
    await server.close()


async def test_a_node_that_may_evict_windows_is_named(cluster: Cluster) -> None:
    """Each primary is asked."""
    node = cluster.primaries()[-1]
    cluster.ask(node, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StartRefused, match=f":{cluster.port(node)} may evict") as refused:
            await Server.connect(cluster.url)
    finally:
        cluster.ask(node, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert "CONFIG SET maxmemory-policy noeviction" in str(refused.value)
