"""What the tests of operators' commands do to servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.io.kafka import Cluster, connected
from processor.io.kafka_topics import partitions_of, topic_configs
from tests.harness import World, until


@asynccontextmanager
async def administering(world: World) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin of the world's cluster."""
    async with connected(Cluster(world.settings())) as admin:
        yield admin


async def grow(world: World, topic: str, partitions: int) -> None:
    """Adds partitions; the broker knows them then."""
    async with administering(world) as admin:
        await admin.create_partitions({topic: NewPartitions(partitions)})

        async def known() -> bool:
            return await partitions_of(admin, topic) == partitions

        await until(known)


async def configure(world: World, topic: str, **configs: str) -> None:
    """Sets these of a topic, `retention_ms` for ``retention.ms``, and of the others their defaults; the broker knows it then."""
    async with administering(world) as admin:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])

        async def known() -> bool:
            return (await topic_configs(admin, [topic]))[topic].items() >= named.items()

        await until(known)
