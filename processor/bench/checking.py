"""After a run: every row and message against the brute force."""

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct, json

from processor.bench.contenders import Kind
from processor.bench.site import PARTITIONS, Site
from processor.io.sandbox import reading

_BYTES = 8 << 20


class _Event(Struct):
    id: str
    suppression_reason: str | None = None


async def wrong(site: Site, kind: Kind, wanted: Mapping[str, str | None]) -> int:
    """How many rows and messages are missing, too many or other than they have to be."""
    said = await _published(site)
    stored = await _stored(site)
    if kind is Kind.FLOOR:
        return len(wanted.keys() ^ {one.id for one in said}) + len(wanted.keys() ^ stored.keys())
    published = {one.id: one.suppression_reason for one in reversed(said)}
    twice = len(said) - len(published) if kind is Kind.OWN else 0
    return twice + unlike(wanted, stored) + unlike(wanted, published)


def unlike(wanted: Mapping[str, str | None], found: Mapping[str, str | None]) -> int:
    """How many are missing, too many or have another verdict."""
    missing = object()
    more = len(found.keys() - wanted.keys())
    return more + sum(found.get(one, missing) != reason for one, reason in wanted.items())


async def _stored(site: Site) -> Mapping[str, str | None]:
    async with reading(site.postgres) as connection:
        rows = await connection.fetch("SELECT id, suppression_reason FROM events")
    return {row[0]: row[1] for row in rows}


async def _published(site: Site) -> Sequence[_Event]:
    """What a read_committed reader sees, each partition in its order."""
    partitions = [TopicPartition(site.enriched, number) for number in range(PARTITIONS)]
    decoder, found = json.Decoder(_Event), list[_Event]()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=site.kafka,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_BYTES,
    )
    async with consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        # A position passes transaction markers too, which are not returned as records.
        while behind := [p for p in partitions if await consumer.position(p) < ends[p]]:
            for records in (await consumer.getmany(*behind, timeout_ms=200)).values():
                found += [decoder.decode(record.value) for record in records]
    return found
