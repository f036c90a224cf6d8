"""Topics are told apart by their ids, by their names where a broker knows no ids; a topic that is not there stays away."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from processor.io.kafka import Cluster
from processor.io.kafka_reading import stopped
from processor.io.topic_ids import look
from processor.pure.position import NO_TOPIC, Topic
from tests.harness import World

pytestmark = pytest.mark.contract


class OlderBroker:
    """A client whose broker knows no topic ids."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.get_random_node = client.get_random_node

    async def send(self, node: int, request: Any) -> Any:
        """Refuses what came later."""
        if type(request).__name__ == "_TopicIds":
            raise NotImplementedError
        return await self._client.send(node, request)


@pytest.fixture
async def client(world: World) -> AsyncIterator[Any]:
    """Connected, with the world's topics."""
    await world.create_topics(3)
    consumer = Cluster(world.settings()).reader()
    await consumer.start()
    yield consumer._client
    await stopped(consumer)


@pytest.mark.parametrize("kind", [lambda client: client, OlderBroker])
async def test_topics_have_identities_and_partitions(world: World, client: Any, kind: Any) -> None:
    """Each another one, the same each time; what is not there has neither, and is not created."""
    names = (world.enriched, "nowhere", world.raw)
    first, second = [await look(kind(client), names) for _ in range(2)]
    assert first == second
    assert [topic.nexts for topic in first] == [(0, 0, 0), (), (0, 0, 0)]
    assert first[1] == Topic(NO_TOPIC, ())
    assert len({topic.identity for topic in first}) == 3
