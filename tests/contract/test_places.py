"""What Postgres remembers of how far lanes have published."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from processor.io.kafka import Partition
from processor.io.places import Places
from processor.io.postgres import Postgres
from processor.places import Place

pytestmark = pytest.mark.contract
FIRST, SECOND = Partition("events.raw", 0), Partition("events.raw", 1)
HERE = Place(b"topic", 7, 5, b"digest")
THERE = Place(b"topic", 3)


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Postgres]:
    """A connection of a worker."""
    connected = await Postgres.connect(database)
    yield connected
    await connected.close()


async def test_a_place_is_known_to_every_worker_once_it_is_kept(postgres: Postgres) -> None:
    """And to the one that told of it at once."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    told.reached(FIRST, HERE)
    told.reached(SECOND, THERE)
    assert (await told.kept(FIRST), await other.kept(FIRST)) == (HERE, None)
    await told.keep()
    found = [await who.kept(p) for who in (told, other) for p in (FIRST, SECOND)]
    assert found == [HERE, THERE, HERE, THERE]
    assert await Places(postgres, "another group").kept(FIRST) is None


async def test_the_last_place_holds_whether_it_is_further_or_not(postgres: Postgres) -> None:
    """A group may be put back, and calls may overtake each other."""
    told = Places(postgres, "group")
    async with asyncio.TaskGroup() as calls:
        for offset in (7, 9, 2):
            told.reached(FIRST, replace(HERE, next_offset=offset))
            calls.create_task(told.keep())
    kept = await Places(postgres, "group").kept(FIRST)
    assert kept == replace(HERE, next_offset=2)


async def test_who_has_left_a_partition_tells_nothing_of_it_any_more(postgres: Postgres) -> None:
    """What another one has kept meanwhile stays."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    told.reached(FIRST, HERE)
    told.leave(FIRST)
    other.reached(FIRST, THERE)
    await other.keep()
    await told.keep()
    assert (await told.kept(FIRST), await other.kept(FIRST)) == (THERE, THERE)
