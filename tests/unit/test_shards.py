"""Where windows are in a cluster: the same in every process, and spread evenly."""

from collections import Counter

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from processor.io.redis_cluster import SHARDS, Cluster
from processor.io.windows_touched import Kind, Touched, by_shard, heaps, shard_of
from processor.pure.types import VelocityFilter


def test_a_lead_is_in_one_shard_for_ever() -> None:
    """What another process, machine or Python would say too: the layout of keys depends on it."""
    assert [shard_of("acme", f"ld_{n}", 64) for n in range(4)] == [45, 59, 1, 23]


def test_leads_are_spread_over_all_shards() -> None:
    """None has a fifth more than its share, of leads that are numbered."""
    shares = Counter(shard_of("acme", f"ld_{n}", SHARDS) for n in range(64_000))
    assert len(shares) == SHARDS
    assert max(shares.values()) < 1_200


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 8, 16, 24, 64])
def test_nodes_with_as_many_slots_have_as_many_shards(nodes: int) -> None:
    """One more or less."""
    tags = Cluster(["redis://host:6379"]).tags
    owners = [key_slot(tag.encode()) * nodes // REDIS_CLUSTER_HASH_SLOTS for tag in tags]
    shares = Counter(owners)
    assert len(shares) == nodes
    assert max(shares.values()) - min(shares.values()) <= 1


class _Asked:
    def __init__(self, shard: int, number: int, looks: int = 1) -> None:
        self.shard = shard
        self.number = number
        self.looks = looks


def test_what_is_asked_of_a_shard_stays_in_order_and_is_not_too_much_at_once() -> None:
    """Each part is of one shard."""
    parts = by_shard([_Asked(n % 2, n) for n in range(7)], 3)
    assert [[one.number for one in part] for part in parts] == [[0, 2, 4], [6], [1, 3, 5]]


def test_windows_with_many_events_are_asked_for_in_more_parts() -> None:
    """A script that looks at each of them would hold up its server; one window alone cannot be parted."""
    parts = by_shard(
        [_Asked(0, n, looks) for n, looks in enumerate((1_500, 900, 200, 9_000, 1))], 9
    )
    assert [[one.number for one in part] for part in parts] == [[0, 1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("threshold", "sizes"), [(1, [50, 20]), (999, [8] * 8 + [6]), (10_000, [1] * 70)]
)
def test_windows_that_may_hold_many_members_are_built_a_few_at_once(
    threshold: int, sizes: list[int]
) -> None:
    """So that what is built at once stays bounded, whatever the filters are."""
    velocity = VelocityFilter("vf", "v", 1, "Page View", threshold, 1_000, False, 1, None)
    kind = Kind("acme", velocity, 0, 0, odd=False)
    wanted = [Touched(0, kind, f"ld-{n}", [n]) for n in range(70)]
    assert [len(part) for part in heaps(wanted, 50)] == sizes
