"""What the tests of operators' commands do to servers."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.harness import World


async def configure(world: World, topic: str, **configs: str) -> None:
    """Sets these of a topic, `retention_ms` for ``retention.ms``, and of the others their defaults."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, named)])
    finally:
        await admin.close()
