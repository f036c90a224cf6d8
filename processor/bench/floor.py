"""The floor: read, copy into Postgres, write, without any thought: no validation, no filters, no verdict, nothing enriched.

What a processor of these parts can come near to and not go under; at least once.  It uses the drivers as anybody would, and nothing of the
processor.
"""

import asyncio
import os
import signal
from datetime import datetime
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import json

STAGED = "CREATE TEMP TABLE staged (LIKE events) ON COMMIT DELETE ROWS"
BATCH = 2_000
PRODUCED = 512 << 10


async def main() -> None:
    """Until SIGTERM."""
    kafka = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = AIOKafkaConsumer(
        os.environ["RAW_TOPIC"],
        bootstrap_servers=kafka,
        group_id=os.environ["CONSUMER_GROUP"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=PRODUCED)
    async with consumer, producer, asyncio.TaskGroup() as lanes:
        while not consumer.assignment():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.05)
        running = [
            lanes.create_task(_lane(consumer, producer, one)) for one in consumer.assignment()
        ]
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, lambda: [lane.cancel() for lane in running]
        )


async def _lane(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, partition: TopicPartition
) -> None:
    postgres = await asyncpg.connect(os.environ["DATABASE_URL"])
    await postgres.execute(STAGED)
    while True:
        read = await consumer.getmany(partition, timeout_ms=500, max_records=BATCH)
        if records := read.get(partition):
            async with postgres.transaction():
                await postgres.copy_records_to_table("staged", records=map(_row, records))
                await postgres.execute(
                    "INSERT INTO events SELECT * FROM staged ON CONFLICT DO NOTHING"
                )
            await publish(producer, partition, records)
            await consumer.commit({partition: records[-1].offset + 1})


async def publish(
    producer: AIOKafkaProducer, partition: TopicPartition, records: list[Any]
) -> None:
    """The same keys and values, acknowledged."""
    topic, batches = os.environ["ENRICHED_TOPIC"], [producer.create_batch()]
    for record in records:
        kept = {"key": record.key, "value": record.value, "timestamp": None}
        if batches[-1].append(**kept) is None:
            batches.append(producer.create_batch())
            batches[-1].append(**kept)
    sent = []
    for batch in batches:
        batch.close()
        sent.append(await producer.send_batch(batch, topic, partition=partition.partition))
    for each in sent:
        await each


def _row(record: Any) -> tuple[Any, ...]:
    event = json.decode(record.value)
    return (
        event["org_unit"],
        event["id"],
        event["lead_id"],
        event["event_type"],
        json.encode(event["metadata"]).decode(),
        None,
        datetime.fromisoformat(event["created_at"]),
    )


if __name__ == "__main__":
    asyncio.run(main())
