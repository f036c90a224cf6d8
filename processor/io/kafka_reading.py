"""Consumers that stand somewhere and read on: the next record they have, and their end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from processor.io.kafka import Partition

POLL_MS = 500
STOP_S = 3.0


class Reader(Protocol):
    """What is asked of a consumer that stands somewhere in a partition."""

    async def getmany(
        self, *partitions: Partition, timeout_ms: int, max_records: int
    ) -> Mapping[Partition, Sequence[Any]]:
        """What has come by then, perhaps nothing."""

    async def position(self, partition: Partition) -> int:
        """The offset it goes on at."""


async def next_record(reader: Reader, partition: Partition, end: int) -> Any | None:
    """The next record; None where only markers of transactions are left before the end.

    Waits: a broker that is slow has not said that there is nothing.
    """
    while True:
        fetched = await reader.getmany(partition, timeout_ms=POLL_MS, max_records=1)
        for record in fetched.get(partition, ()):
            return record
        if await reader.position(partition) >= end:
            return None


async def stopped(consumer: Any, within_s: float = STOP_S) -> None:
    """Stops a consumer, whatever state it is in."""
    try:
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.stop())  # may end as if it were cancelled, half done
    except* (TimeoutError, KafkaError, OSError):
        pass  # nobody waits for it any more
    finally:
        await consumer._client.close()  # noqa: SLF001 - what stop() may have left open
