"""What Postgres remembers of how far lanes have published."""

from collections.abc import AsyncIterator

import pytest

from processor.io.kafka import Partition
from processor.io.places import Places
from processor.io.postgres import Postgres

pytestmark = pytest.mark.contract
FIRST, SECOND = Partition("events.raw", 0), Partition("events.raw", 1)
TOPIC, ANOTHER = b"topic", b"made again"


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Postgres]:
    """A connection of a worker."""
    connected = await Postgres.connect(database)
    yield connected
    await connected.close()


async def test_a_place_is_known_to_every_worker_once_it_is_kept(postgres: Postgres) -> None:
    """And to the one that told of it at once."""
    told, other = Places(postgres, "group"), Places(postgres, "group")
    told.reached(FIRST, TOPIC, 7)
    told.reached(SECOND, TOPIC, 3)
    assert (await told.kept(FIRST, TOPIC), await other.kept(FIRST, TOPIC)) == (7, None)
    await told.keep()
    found = [await who.kept(p, TOPIC) for who in (told, other) for p in (FIRST, SECOND)]
    assert found == [7, 3, 7, 3]


async def test_the_last_place_holds_whether_it_is_further_or_not(postgres: Postgres) -> None:
    """A group may be put back."""
    told = Places(postgres, "group")
    for offset in (7, 9, 2):
        told.reached(FIRST, TOPIC, offset)
        await told.keep()
        assert await Places(postgres, "group").kept(FIRST, TOPIC) == offset


async def test_a_place_is_of_its_group_and_its_topic_alone(postgres: Postgres) -> None:
    """Also of the one that has the name of a former one, kept or not."""
    told = Places(postgres, "group")
    told.reached(FIRST, TOPIC, 7)
    assert await told.kept(FIRST, ANOTHER) is None
    await told.keep()
    assert await told.kept(FIRST, ANOTHER) is None
    assert await Places(postgres, "another").kept(FIRST, TOPIC) is None
    told.reached(FIRST, ANOTHER, 1)
    await told.keep()
    assert (await told.kept(FIRST, TOPIC), await told.kept(FIRST, ANOTHER)) == (None, 1)
