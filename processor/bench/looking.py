"""How far a run is, at little cost to what is measured: the state of its group, and how much of its output can be read.

Rows need no look: whoever keeps its promise stores them before their messages, and the check at the end counts them.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from processor.bench.site import PARTITIONS, Site

_STATE = 2


@dataclass
class Seen:
    """Seconds of the monotonic clock; 0 for what has not been seen."""

    assigned: float = 0.0
    """When the group last became stable before the first output: then all partitions had somebody to read them."""
    first: float = 0.0
    """When the first output could be read."""
    last: float = 0.0
    """When output came for the last time."""
    published: int = 0
    """Offsets that can be read, transactions' markers included."""


@dataclass(frozen=True)
class Look:
    """A glance at the servers."""

    site: Site
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    partitions: Sequence[TopicPartition]

    async def at(self, seen: Seen) -> None:
        """Adds what there is to see now."""
        now = time.monotonic()
        if not seen.first:
            stable = await self._stable()
            seen.assigned = (seen.assigned or now) if stable else 0.0
        ends = await self.consumer.end_offsets(self.partitions)
        published = sum(ends.values())
        if published != seen.published:
            seen.first, seen.assigned = seen.first or now, seen.assigned or now
            seen.last, seen.published = now, published

    async def _stable(self) -> bool:
        try:
            answers = await self.admin.describe_consumer_groups([self.site.group])
        except GroupCoordinatorNotAvailableError:  # before anybody asked for one
            return False
        states = [group[_STATE] for answer in answers for group in answer.groups]
        return states == ["Stable"]


@asynccontextmanager
async def looking(site: Site) -> AsyncIterator[Look]:
    """At a run on this site."""
    partitions = [TopicPartition(site.enriched, number) for number in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=site.kafka, isolation_level="read_committed")
    admin = AIOKafkaAdminClient(bootstrap_servers=site.kafka)
    await admin.start()
    try:
        async with consumer:
            yield Look(site, consumer, admin, partitions)
    finally:
        await admin.close()
