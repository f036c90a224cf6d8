"""Transactions without an end, as a broker leaves them that calls them complete and writes no marker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.io.kafka_producer import Live
from tests.harness import Message, World, until

BROKER = "1"
VERIFIES = "transaction.partition.verification.enable"


async def leave_open(world: World, output: Message, next_offset: int | None = None) -> None:
    """An output in the first partition and, with the first input partition's id, the group's offset there; no coordinator knows of it."""
    own_id = f"{world.group}.{world.raw}.0"
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, transactional_id=own_id)
    await producer.start()
    try:
        async with _unverified(world):
            await producer.begin_transaction()
            source, target = TopicPartition(world.raw, 0), TopicPartition(world.enriched, 0)
            producer._txn_manager._txn_partitions.add(target)
            producer._txn_manager._txn_consumer_group = world.group
            await producer.send_and_wait(target.topic, output.value, output.key, partition=0)
            if next_offset is not None:
                offset = {source: (next_offset, f"lane {next_offset}")}
                await producer.send_offsets_to_transaction(offset, world.group)
    finally:
        await Live(producer).end()


@asynccontextmanager
async def _unverified(world: World) -> AsyncIterator[None]:
    """The broker takes what a transaction has not announced."""
    client = AIOKafkaAdminClient(bootstrap_servers=world.kafka)
    await client.start()
    try:
        await _configure(client, {VERIFIES: "false"})
        yield
        await _configure(client, {})
    finally:
        await client.close()


async def _configure(client: AIOKafkaAdminClient, configs: dict[str, str]) -> None:
    """Returns when the broker knows it."""
    broker = ConfigResourceType.BROKER
    await client.alter_configs([ConfigResource(broker, BROKER, configs)])

    async def known() -> bool:
        (answer,) = await client.describe_configs([ConfigResource(broker, BROKER)])
        ((*_, entries),) = answer.resources
        found = {name: value for name, value, *_ in entries}
        return bool(found[VERIFIES] == configs.get(VERIFIES, "true"))

    await until(known)
