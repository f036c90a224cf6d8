"""Offsets: what partitions hold, where groups stand, and `processor offsets reset`, which moves one knowingly.

There, the offset is committed by a producer with the partition's own transactional id.  So it works while
workers run: whoever has the partition is fenced, joins again and goes on from there, and a stopped
lane takes up by itself.  With at_least_once nobody is fenced: what a lane may commit over is not moved.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupLoadInProgressError
from aiokafka.structs import OffsetAndMetadata

from processor.failures import Failure, StartRefused
from processor.io.kafka import Cluster, Partition, at_start, translated
from processor.io.kafka_committed import coordinated
from processor.io.kafka_topics import require_partition
from processor.settings import Settings

ANSWER_S = 20.0


async def reset_offset(settings: Settings, topic: str, partition: int, to: str) -> int:
    """The offset that is committed now; `to` is ``earliest``, ``latest`` or an offset the topic holds.

    Raises `StartRefused`, also where a lane in at_least_once goes on in the partition.
    """
    _require_input(settings, topic)
    cluster = Cluster(settings)
    source = Partition(topic, partition)
    async with at_start(cluster) as admin:
        await require_partition(admin, topic, partition)
        unfenced = await _unfenced(admin, settings, source)
    try:
        starts, ends = await held(cluster, [source])
        offset = _offset(to, starts[source], ends[source])
        if unfenced is not None:
            _require_stopped(unfenced, starts[source], ends[source])
        await _commit(cluster, source, offset)
    except StartRefused:
        raise
    except Failure as error:
        raise StartRefused(f"the offset is not moved: {error}; try again") from error
    return offset


def _require_input(settings: Settings, topic: str) -> None:
    instead = {
        settings.enriched_topic: "the engagement service goes on where its rows of engagement_places say: stop it and delete them",
        settings.dead_topic: "`processor replay` sends dead letters back",
    }
    inputs = (settings.raw_topic, settings.merge_topic)
    if topic not in inputs:
        todo = instead.get(topic, f"allowed: {' and '.join(inputs)}")
        raise StartRefused(f"the group does not read {topic}; {todo}")


async def _unfenced(
    admin: AIOKafkaAdminClient, settings: Settings, source: Partition
) -> int | None:
    """Where the group stands, -1 for nowhere yet, if it has members whom a reset does not fence; else None."""
    group = settings.consumer_group
    if settings.processing_guarantee == "exactly_once":
        return None
    (answer,) = await coordinated(partial(admin.describe_consumer_groups, [group]))
    (row,) = answer.to_object()["groups"]
    return (await committed(admin, group, [source]))[source].offset if row["members"] else None


def _require_stopped(stands: int, start: int, end: int) -> None:
    """A lane that stands outside the log is stopped, and commits nothing."""
    if stands < 0 or start <= stands <= end:
        raise StartRefused(
            "with at_least_once the worker that has the partition would commit over it; stop the workers first"
        )


def _offset(to: str, start: int, end: int) -> int:
    if to in {"earliest", "latest"}:
        return start if to == "earliest" else end
    if not (to.isdecimal() and start <= int(to) <= end):
        raise StartRefused(f"--to is {to!r}; allowed: earliest, latest or {start} to {end}")
    return int(to)


async def held(
    cluster: Cluster, partitions: Sequence[Partition]
) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
    """The first offset that each partition holds, and the one after the last that can be read; raises `Retryable`."""
    reader = cluster.reader()
    try:
        async with translated(ANSWER_S):
            await reader.start()
            reader.assign(list(partitions))
            return (
                await reader.beginning_offsets(partitions),
                await reader.end_offsets(partitions),
            )
    finally:
        await reader.stop()


async def committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[Partition]
) -> Mapping[Partition, OffsetAndMetadata]:
    """The group's offset in each partition, -1 where it has none; raises aiokafka's errors."""
    return await coordinated(partial(_committed, admin, group, partitions))


async def _committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[Partition]
) -> Mapping[Partition, OffsetAndMetadata]:
    wanted = list(partitions)
    found: Mapping[Partition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(
        group, partitions=wanted
    )
    if any(partition not in found for partition in wanted):
        raise GroupLoadInProgressError  # the only sign of it in aiokafka's answer
    return found


async def _commit(cluster: Cluster, source: Partition, offset: int) -> None:
    size = cluster.tuning.produce_bytes
    producer = cluster.producer(size, cluster.transactional_id(source))
    try:
        async with translated(ANSWER_S):
            await producer.start()
            await producer.begin_transaction()
            group = cluster.settings.consumer_group
            await producer.send_offsets_to_transaction({source: offset}, group)
            await producer.commit_transaction()
    finally:
        await producer.stop()
