"""When events can be read: a reader of committed messages that never stops, beside whatever is done to the workers."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from aiokafka import AIOKafkaConsumer

from tests.harness import World


class Tail:
    """Follows the enriched topic from its end, as long as the block runs."""

    def __init__(self, world: World) -> None:
        self.seconds: list[float] = []
        """Of each message: from its raw record's timestamp, which is taken before that is sent, to when it could be read."""
        self._consumer = AIOKafkaConsumer(
            world.enriched,
            bootstrap_servers=world.kafka,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reading:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._consumer.stop()

    async def _read(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=1_000)
            now_ms = time.time_ns() / 1_000_000
            for records in fetched.values():
                self.seconds.extend((now_ms - record.timestamp) / 1000 for record in records)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so many are at most: `share` 0.99 is the p99."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
