"""A floor that does what the contract asks of its servers, and still decides nothing: where a processor of these parts has to end up.

`LEVEL` says how much: `table` stores into the processor's table with its indexes; `transactions` publishes each batch and its offset in
one, too; `windows` also keeps the simplest of sliding windows in Redis, a call a batch, wrong for what comes late.  No validation, no
filters, no verdicts, no merges, no counts, nothing enriched; a window that is lost is lost.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import json

from processor.bench.floor import BATCH, PRODUCED, STAGED, publish
from processor.bench.traffic import VELOCITY

LEVELS = "table", "transactions", "windows"
WINDOWS = """
local exceeding = 0
for n, key in ipairs(KEYS) do
  local at = tonumber(ARGV[2 * n])
  redis.call('ZADD', key, at, ARGV[2 * n - 1])
  if redis.call('ZCARD', key) > 10 then exceeding = exceeding + redis.call('ZCOUNT', key, at - 60000, at) end
  redis.call('PEXPIREAT', key, at + 90000000)
end
return exceeding
"""


class Bounded:
    """One process of the consumer group."""

    def __init__(self, level: str) -> None:
        self._transactions = level != "table"
        self._windows = level == "windows"
        self._kafka = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self._group = os.environ["CONSUMER_GROUP"]
        client = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
        self._script = client.register_script(WINDOWS)

    async def run(self) -> None:
        """Until SIGTERM."""
        consumer = AIOKafkaConsumer(
            os.environ["RAW_TOPIC"],
            bootstrap_servers=self._kafka,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        async with consumer, asyncio.TaskGroup() as lanes:
            while not consumer.assignment():  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.05)
            running = [lanes.create_task(self._lane(consumer, p)) for p in consumer.assignment()]
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGTERM, lambda: [lane.cancel() for lane in running]
            )

    async def _lane(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        postgres = await asyncpg.connect(os.environ["DATABASE_URL"])
        await postgres.execute(STAGED)
        own = f"{self._group}-{partition.partition}" if self._transactions else None
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka, max_batch_size=PRODUCED, transactional_id=own
        )
        async with producer:
            while True:
                read = await consumer.getmany(partition, timeout_ms=500, max_records=BATCH)
                if records := read.get(partition):
                    await self._stored(postgres, records)
                    await self._published(consumer, producer, partition, records)

    async def _stored(self, postgres: asyncpg.Connection, records: Sequence[Any]) -> None:
        events = [json.decode(record.value) for record in records]
        now = datetime.now(UTC)  # noqa: TID251 - what it stores is looked at by nobody
        rows = [_row(*both, now) for both in zip(events, records, strict=True)]
        async with postgres.transaction():
            await postgres.copy_records_to_table("staged", records=rows)
            await postgres.execute("INSERT INTO events SELECT * FROM staged ON CONFLICT DO NOTHING")
        if self._windows:
            watched = [event for event in events if event["event_type"] in VELOCITY]
            keys = [event["org_unit"] + event["lead_id"] + event["event_type"] for event in watched]
            members = [word for event in watched for word in (event["id"][4:20], _ms(event))]
            await self._script(keys=keys, args=members)

    async def _published(
        self,
        consumer: AIOKafkaConsumer,
        producer: AIOKafkaProducer,
        partition: TopicPartition,
        records: list[Any],
    ) -> None:
        offsets = {partition: records[-1].offset + 1}
        if not self._transactions:
            await publish(producer, partition, records)
            await consumer.commit(offsets)
            return
        async with producer.transaction():
            await publish(producer, partition, records)
            await producer.send_offsets_to_transaction(offsets, self._group)


def _row(event: dict[str, Any], record: Any, now: datetime) -> tuple[object, ...]:
    """In the order of the table's columns."""
    return (
        *(event["org_unit"], event["id"], event["lead_id"], None, event["event_type"]),
        *(json.encode(event["metadata"]).decode(), None, None),
        *(datetime.fromisoformat(event["created_at"]), now),
        *(record.topic, record.partition, record.offset, record.timestamp, None, 1, 1, True, None),
    )


def _ms(event: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(event["created_at"]).timestamp() * 1000)


if __name__ == "__main__":
    asyncio.run(Bounded(os.environ["LEVEL"]).run())
