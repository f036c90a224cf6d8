"""What Postgres remembers of how far lanes have published."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from processor.failures import Retryable, Unsettled
from processor.io.kafka import Partition
from processor.io.places import Places
from processor.io.postgres import Postgres
from processor.places import DOUBTED, Own, Place
from processor.pure.lane import Bounds
from processor.pure.types import Record
from tests import harness
from tests.harness_secured import restored_places

pytestmark = pytest.mark.contract
FIRST, SECOND = Partition("events.raw", 0), Partition("events.raw", 1)
HERE = Place(b"topic", 7, 5, b"digest")
THERE = Place(b"topic", 3)
ROW_OF_EARLIER = """
INSERT INTO events (org_unit, id, lead_id, event_type, metadata, occurred_at, received_at, source_topic, source_partition,
    source_offset, batch, rules, counted)
VALUES ('acme', 'e', 'l', 'T', '{}', now(), now(), 'events.raw', 0, 500, 1, 1, true)"""


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Postgres]:
    """A connection of a worker."""
    connected = await Postgres.connect(database)
    yield connected
    await connected.close()


async def test_a_place_is_known_to_every_worker_once_it_is_kept(postgres: Postgres) -> None:
    """And to the one that told of it at once."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    await told.take(FIRST, THERE)
    await told.take(SECOND, THERE)
    told.reached(FIRST, HERE)
    assert (await told.kept(FIRST), await other.kept(FIRST)) == (HERE, THERE)
    await told.keep()
    found = [await who.kept(p) for who in (told, other) for p in (FIRST, SECOND)]
    assert found == [HERE, THERE, HERE, THERE]
    assert await Places(postgres, "another group").kept(FIRST) is None


async def test_the_last_place_holds_whether_it_is_further_or_not(postgres: Postgres) -> None:
    """Calls do not overtake each other."""
    told = Places(postgres, "group")
    await told.take(FIRST, THERE)
    async with asyncio.TaskGroup() as calls:
        for offset in (7, 9, 2):
            told.reached(FIRST, replace(HERE, next_offset=offset))
            calls.create_task(told.keep())
    kept = await Places(postgres, "group").kept(FIRST)
    assert kept == replace(HERE, next_offset=2)


@pytest.mark.parametrize("free", [True, False])
async def test_a_lane_that_was_held_up_takes_no_place_of_one_that_began_meanwhile(
    postgres: Postgres, free: bool
) -> None:
    """It asks again, and then it may."""
    late, other = Places(postgres, "group"), Places(postgres, "group")
    if not free:
        await other.take(FIRST, THERE)
    await late.kept(FIRST)
    await other.kept(FIRST)
    await other.take(FIRST, HERE)
    with pytest.raises(Retryable, match="another lane"):
        await late.take(FIRST, THERE)
    assert await late.kept(FIRST) == HERE
    await late.take(FIRST, THERE)
    assert await other.kept(FIRST) == THERE


async def test_who_began_last_is_believed_and_nobody_before(postgres: Postgres) -> None:
    """However late a former lane tells what it did; not even its own worker believes it."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    await told.take(FIRST, THERE)
    told.reached(FIRST, HERE)
    await other.kept(FIRST)
    await other.take(FIRST, THERE)
    assert await told.kept(FIRST) == THERE
    await told.keep()
    assert (await told.kept(FIRST), await other.kept(FIRST)) == (THERE, THERE)
    other.reached(FIRST, HERE)
    await other.keep()
    assert await told.kept(FIRST) == HERE


async def test_a_place_that_is_doubted_is_doubted_by_every_worker_until_a_lane_begins(
    postgres: Postgres,
) -> None:
    """Whoever comes next is to know that something was left half done."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    await told.take(FIRST, THERE)
    told.reached(FIRST, HERE)
    await told.kept(FIRST)
    await told.take(FIRST, DOUBTED)
    await told.keep()
    assert (await told.kept(FIRST), await other.kept(FIRST)) == (DOUBTED, DOUBTED)
    await other.take(FIRST, THERE)
    assert await told.kept(FIRST) == THERE


class Held:
    """A membership that is held up while it asks Kafka, and another lane begins meanwhile."""

    def __init__(self, other: Places) -> None:
        self._other = other

    async def bounds(self, partition: Partition) -> Bounds:
        """What comes is that a transaction hangs."""
        await self._other.kept(partition)
        await self._other.take(partition, HERE)
        raise Unsettled("kafka", "the end of a transaction does not come")

    async def record(self, partition: Partition, offset: int) -> Record | None:
        """Nobody gets that far."""
        raise AssertionError


async def test_who_was_held_up_doubts_no_place_of_a_lane_that_began_meanwhile(
    postgres: Postgres,
) -> None:
    """The living lane's place is its own, and it goes on telling how far it comes."""
    late, other = Places(postgres, "group"), Places(postgres, "group")
    own = Own(FIRST, Held(other), late)
    with pytest.raises(Unsettled):
        await own.bounds()
    with pytest.raises(Retryable, match="another lane"):
        await own.doubt()
    other.reached(FIRST, replace(HERE, next_offset=9))
    await other.keep()
    assert await late.kept(FIRST) == replace(HERE, next_offset=9)


async def test_nor_does_it_believe_again_what_it_has_doubted(postgres: Postgres) -> None:
    """Where another lane has begun since its doubt."""
    late, other = Places(postgres, "group"), Places(postgres, "group")
    own = Own(FIRST, Held(Places(postgres, "another group")), late)
    await other.take(FIRST, THERE)
    with pytest.raises(Unsettled):
        await own.bounds()
    former = await own.doubt()
    await other.kept(FIRST)
    await other.take(FIRST, HERE)
    with pytest.raises(Retryable, match="another lane"):
        await own.believe(former)
    assert (former, await late.kept(FIRST)) == (THERE, HERE)


async def test_a_restored_database_says_where_each_lane_goes_on(
    postgres: Postgres, database: str
) -> None:
    """As the runbook asks it: rows of an earlier topic of the name, which had higher offsets, do not count."""
    places = Places(postgres, "processor")
    await places.take(FIRST, Place(b"earlier", 501))
    await asyncio.to_thread(harness.execute, database, ROW_OF_EARLIER)
    await places.take(FIRST, Place(b"topic", 0))
    await places.take(SECOND, Place(b"topic", 0))
    places.reached(FIRST, HERE)
    await places.keep()
    assert await restored_places(database, {}) == {0: 7, 1: 0}
