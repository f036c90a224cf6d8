"""The end of a producer, whatever state it is in, and one that many share: started once, used until one of them meets an error."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from processor.io.ending import ended, seen
from processor.io.kafka import translated

START_S = 20.0
FLUSH_S = 1.0
"""What is under way when it is ended may take this long."""
CLOSE_S = 2.0
_INSIST_S = 0.1
_TASKS = "Sender.", "MessageAccumulator."


async def abandon(producer: AIOKafkaProducer) -> None:
    """Ends everything the producer has begun and closes its connections, each within `CLOSE_S`; never raises for what Kafka does.

    Its own `stop` ends neither requests, which are tried again for ever, nor what waits for them.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            while tasks := _tasks(producer):
                for task in tasks:
                    task.cancel()
                over, _ = await asyncio.wait(tasks, timeout=_INSIST_S)
                for task in over:
                    seen(task)
    await ended(producer.client.close(), CLOSE_S)


def _tasks(producer: AIOKafkaProducer) -> set["asyncio.Task[Any]"]:
    """Those that run now.  Nobody else knows them: a sender that failed leaves its requests to themselves."""
    owners = producer._sender, producer._message_accumulator  # noqa: SLF001
    methods = [task for task in asyncio.all_tasks() if _name(task).startswith(_TASKS)]
    return {task for task in methods if any(_owner(task) is one for one in owners)}


def _name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "")


def _owner(task: "asyncio.Task[Any]") -> object:
    """Whose method it runs."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame else None


class Live:
    """A producer and what is under way with it."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._unacknowledged: set[asyncio.Future[Any]] = set()

    async def start(self, topics: Sequence[str]) -> None:
        """Connects, and knows the partitions of the topics; raises `Retryable`, and is then ended."""
        try:
            async with translated(START_S):
                await self._producer.start()
                for topic in topics:
                    await self._producer.partitions_for(topic)
        except BaseException:
            await self.end()
            raise

    async def send(self, records: Iterable[Mapping[str, Any]]) -> Sequence[Any]:
        """What aiokafka knows of each record once all are acknowledged; raises the first failure, after which it is to be ended."""
        sent = [self._under_way(await self._producer.send(**record)) for record in records]
        done, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_EXCEPTION)
        for each in done:
            each.result()
        return [each.result() for each in sent]

    async def answers(self) -> None:
        """Returns once a broker has told what topics there are."""
        await self._producer.client.fetch_all_metadata()

    async def end(self) -> None:
        """Never raises for what Kafka does; what is not acknowledged within `FLUSH_S` fails."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._producer.flush()
        for each in self._unacknowledged:
            if not each.done():
                each.set_exception(KafkaError("the producer is replaced"))
        await self._close()

    async def _close(self) -> None:
        """As the producer's own `stop`, which would wait for ever for what cannot be sent."""
        producer = self._producer
        producer._closed = producer._message_accumulator._closed = True  # noqa: SLF001
        await abandon(producer)

    def _under_way(self, sent: "asyncio.Future[Any]") -> "asyncio.Future[Any]":
        self._unacknowledged.add(sent)
        sent.add_done_callback(self._acknowledged)
        return sent

    def _acknowledged(self, sent: "asyncio.Future[Any]") -> None:
        self._unacknowledged.discard(sent)
        seen(sent)
