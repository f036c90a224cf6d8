"""Consumers that stand somewhere and read on: the next record they have, and their end."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from processor.io.ending import ended
from processor.io.kafka import Partition

POLL_MS = 500
STOP_S = 3.0
_CUT_S = 1.0


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
    """Stops a consumer, whatever state it is in; takes a moment more than `within_s` where it hangs."""
    try:
        await ended(consumer.stop(), within_s)
    finally:
        # What a stop that hung, or failed half way, has left.
        fetcher = consumer._fetcher  # noqa: SLF001
        if fetcher is not None:
            await ended(fetcher.close(), _CUT_S)
        await ended(consumer._client.close(), _CUT_S)  # noqa: SLF001
