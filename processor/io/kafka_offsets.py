"""`processor offsets reset`: moves the group's offset of one partition, knowingly.

The offset is committed by a producer with the partition's own transactional id.  So it works while
workers run: whoever has the partition is fenced, joins again and goes on from there, and a stopped
lane takes up by itself.  (With at_least_once only a stopped lane does; stop the workers otherwise.)
"""

from processor.failures import Failure, StartRefused
from processor.io.kafka import Cluster, Partition, at_start, translated
from processor.io.kafka_topics import require_partition
from processor.settings import Settings

ANSWER_S = 20.0


async def reset_offset(settings: Settings, topic: str, partition: int, to: str) -> int:
    """The offset that is committed now; `to` is ``earliest``, ``latest`` or an offset the topic holds.

    Raises `StartRefused`.
    """
    cluster = Cluster(settings)
    async with at_start(cluster) as admin:
        await require_partition(admin, topic, partition)
    source = Partition(topic, partition)
    try:
        start, end = await _held(cluster, source)
        offset = _offset(to, start, end)
        await _commit(cluster, source, offset)
    except StartRefused:
        raise
    except Failure as error:
        raise StartRefused(f"the offset is not moved: {error}; try again") from error
    return offset


def _offset(to: str, start: int, end: int) -> int:
    if to in {"earliest", "latest"}:
        return start if to == "earliest" else end
    if not (to.isdecimal() and start <= int(to) <= end):
        raise StartRefused(f"--to is {to!r}; allowed: earliest, latest or {start} to {end}")
    return int(to)


async def _held(cluster: Cluster, source: Partition) -> tuple[int, int]:
    reader = cluster.reader()
    try:
        async with translated(ANSWER_S):
            await reader.start()
            reader.assign([source])
            start = await reader.beginning_offsets([source])
            end = await reader.end_offsets([source])
    finally:
        await reader.stop()
    return start[source], end[source]


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
