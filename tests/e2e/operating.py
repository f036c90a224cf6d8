"""What the tests of operators' commands do to servers."""

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.io.kafka_topics import partitions_of, topic_configs
from tests.harness import World, until


async def grow(world: World, topic: str, partitions: int) -> None:
    """Adds partitions; the broker knows them then."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})

        async def known() -> bool:
            return await partitions_of(admin, topic) == partitions

        await until(known)
    finally:
        await admin.close()


async def configure(world: World, topic: str, **configs: str) -> None:
    """Sets these of a topic, `retention_ms` for ``retention.ms``, and of the others their defaults; the broker knows it then."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])

        async def known() -> bool:
            return (await topic_configs(admin, [topic]))[topic].items() >= named.items()

        await until(known)
    finally:
        await admin.close()
