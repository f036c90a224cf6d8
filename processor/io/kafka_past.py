"""What Kafka still holds of the raw topic, and what of it is not processed yet: a purge must not go beyond either."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer

from processor.io.kafka import Cluster, Partition, at_start, translated
from processor.io.kafka_offsets import committed, held
from processor.io.kafka_reading import next_record, stopped
from processor.io.kafka_topics import partitions_of, require_topics, topic_configs
from processor.io.purge import Held
from processor.settings import Settings

ANSWER_S = 20.0


class Raw:
    """The raw topic; methods raise `StartRefused` or `Retryable`."""

    def __init__(self, settings: Settings) -> None:
        self._cluster = Cluster(settings)
        self._group = settings.consumer_group
        self.topic = settings.raw_topic
        self._inputs = (settings.raw_topic, settings.merge_topic)
        self.configs: Mapping[str, Mapping[str, str]] = {}
        """Of either input: merges make rows too."""
        self._unread: Sequence[tuple[Partition, int]] = ()
        self._starts: Mapping[Partition, int] = {}
        self._ends: Mapping[Partition, int] = {}

    async def look(self) -> None:
        """Asks what there is."""
        async with at_start(self._cluster) as admin:
            count = await partitions_of(admin, self.topic)
            await require_topics(admin, self._inputs)
            self.configs = await topic_configs(admin, self._inputs)
            partitions = [Partition(self.topic, number) for number in range(count)]
            offsets = await committed(admin, self._group, partitions)
        self._starts, self._ends = await held(self._cluster, partitions)
        nexts = {p: max(offsets[p].offset, self._starts[p]) for p in partitions}
        self._unread = [(p, at) for p, at in nexts.items() if at < self._ends[p]]

    async def oldest_unread(self) -> int | None:
        """The record timestamp of the first message of a partition that is not processed yet: the oldest of them; ms."""
        found: list[int] = []
        if self._unread:
            async with self._reading([p for p, _ in self._unread]) as reader:
                for partition, at in self._unread:
                    reader.seek(partition, at)
                    record = await next_record(reader, partition, self._ends[partition])
                    if record is not None and record.timestamp >= 0:
                        found.append(record.timestamp)
        return min(found, default=None)

    @property
    def held(self) -> Sequence[Held]:
        """All its messages, however old: timestamps need not be in order, and it removes whole segments alone."""
        return [
            Held(p.partition, start, self._ends[p])
            for p, start in sorted(self._starts.items())
            if start < self._ends[p]
        ]

    @asynccontextmanager
    async def _reading(self, partitions: Sequence[Partition]) -> AsyncIterator[AIOKafkaConsumer]:
        reader = self._cluster.reader()
        try:
            async with translated(ANSWER_S):
                await reader.start()
                reader.assign(list(partitions))
                yield reader
        finally:
            await stopped(reader)
