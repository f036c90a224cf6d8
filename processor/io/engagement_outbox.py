"""What the engagement service tells: read from Postgres in order, acknowledged by Kafka, and only then forgotten.

Any number of processes may run this: one of them publishes at a time.  One that dies in between leaves what it had sent to be sent
again: at least once, in order but for that.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from processor import telemetry
from processor.failures import Fenced, Retryable, Stopped
from processor.io.engagement_store import Store
from processor.io.kafka import Cluster, translated
from processor.io.kafka_producer import Live
from processor.pure.engagement import Told

SEND_S = 4.0
"""Less than Postgres lets a transaction be idle."""
LOOK_S = 1.0
"""How often it looks for what a process has left that is no more."""
_BATCH = 512 << 10


class Outbox:
    """Publishes to one topic."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._topic = cluster.settings.engagement_topic
        self._store = store
        self._live: Live | None = None
        self._fresh = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._fresh.set()

    async def rest(self) -> None:
        """Until there is something new, or a process may have left something."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._fresh.wait()

    async def publish(self) -> None:
        """All there is; raises `Retryable`."""
        self._fresh.clear()
        try:
            await self._started()  # not while the outbox is locked
            while number := await self._store.publish(self._send):
                telemetry.ENGAGEMENT_TOLD.inc(number)
        except BaseException as error:
            await self.close()
            if isinstance(error, Fenced | Stopped):
                raise Retryable("kafka", str(error)) from error
            raise

    async def close(self) -> None:
        """Ends the producer."""
        live, self._live = self._live, None
        if live is not None:
            await live.end()

    async def _started(self) -> Live:
        if self._live is None:
            live = Live(self._cluster.producer(_BATCH, None))
            await live.start([self._topic])
            self._live = live
        return self._live

    async def _send(self, told: Sequence[Told]) -> None:
        live = await self._started()
        async with translated(SEND_S):
            await live.send(
                {"topic": self._topic, "key": one.lead_id.encode(), "value": one.value}
                for one in told
            )
