"""What is not processed yet is waited for: an answer that has not come is no empty partition."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from msgspec import Struct

from processor.failures import Retryable
from processor.io.kafka import Partition, translated
from processor.io.kafka_reading import next_record

PLACE = Partition("events.raw", 0)
END = 9


class Read(Struct, frozen=True):
    """A record as a consumer returns it."""

    timestamp: int


class Answers:
    """A reader whose polls return these, each with the offset it goes on at; the last one for ever."""

    def __init__(self, *answers: tuple[int, Sequence[Read]]) -> None:
        self._answers = list(answers)
        self._at = 0

    async def getmany(
        self, *partitions: Partition, timeout_ms: int, max_records: int
    ) -> Mapping[Partition, Sequence[Read]]:
        """The next answer."""
        assert (partitions, max_records) == ((PLACE,), 1)
        assert timeout_ms > 0
        self._at, records = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return {PLACE: records} if records else {}

    async def position(self, partition: Partition) -> int:
        """Where the last answer left it."""
        assert partition == PLACE
        return self._at


async def test_a_slow_broker_is_waited_for() -> None:
    """Two polls bring nothing, the third the record."""
    reader = Answers((5, []), (5, []), (6, [Read(1234)]))
    assert await next_record(reader, PLACE, END) == Read(1234)


async def test_markers_alone_are_nothing() -> None:
    """The position passes the end without a record."""
    assert await next_record(Answers((5, []), (END, [])), PLACE, END) is None


async def test_a_broker_that_never_answers_is_no_empty_partition() -> None:
    """The deadline ends the wait, as whatever Kafka does not answer."""

    class Silent(Answers):
        async def position(self, partition: Partition) -> int:
            await asyncio.Event().wait()
            return await super().position(partition)

    with pytest.raises(Retryable, match="no answer within"):
        async with translated(0.05):
            await next_record(Silent((5, [])), PLACE, END)
