"""Every metric that is declared moves here, on real servers, and by what it is declared to count.

A metric that is new belongs into `MOVED`, under the test that moves it.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client.registry import Collector

from processor import telemetry
from processor.io.kafka import Cluster, connected
from processor.io.kafka_offsets import reset_offset
from tests.api.client import Api, api
from tests.api.sse import enriched, publish
from tests.api.test_stream_clients import LARGE, connection
from tests.declared import declared
from tests.e2e.faulty import Start, start_faulty
from tests.e2e.scraped import Watched, by, of, samples, total, watched
from tests.harness import Message, Worker, World, processor, produce, until

__all__ = ["api", "start_faulty"]
pytestmark = [pytest.mark.e2e]

MOVED: Mapping[str, Iterable[Collector]] = {
    "verdicts": (
        telemetry.BUILD,
        telemetry.EVENTS,
        telemetry.DECISIONS,
        telemetry.BATCH_EVENTS,
        telemetry.STAGE_SECONDS,
        telemetry.PUBLISHED_SECONDS,
        telemetry.DEAD_LETTERS,
        telemetry.DUPLICATES,
        telemetry.LATE_EVENTS,
        telemetry.WINDOW_REBUILDS,
        telemetry.RULES_REVISION,
        telemetry.REBALANCES,
    ),
    "merges": (
        telemetry.MERGES,
        telemetry.MOVED_EVENTS,
        telemetry.PENDING_MOVES,
        telemetry.UNCOUNTED,
    ),
    "faults": (
        telemetry.LAG,
        telemetry.OLDEST,
        telemetry.WAITING,
        telemetry.WAITING_SECONDS,
        telemetry.STOPPED_LANES,
        telemetry.FENCED,
    ),
    "http": (
        telemetry.HTTP_REQUESTS,
        telemetry.HTTP_SECONDS,
        telemetry.INGESTED,
        telemetry.STREAM_CLIENTS,
        telemetry.STREAM_CUT_OFF,
    ),
    "engagement": (
        telemetry.ENGAGEMENT_EVENTS,
        telemetry.ENGAGEMENT_FOREIGN,
        telemetry.ENGAGEMENT_TORN,
        telemetry.ENGAGEMENT_TOLD,
    ),
}
FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {id: vf, name: Bursts, event_type: page_view, threshold: 1, window_ms: 1000}
    metadata_filters:
      - {id: mf, name: Bots, conditions: [{key: agent, operator: contains, value: bot}]}
"""
COUNTED = (
    ("processor_events_total", "reason"),
    ("processor_decisions_total", "kind"),
    ("processor_dead_letters_total", "stage"),
    ("processor_duplicates_total", ""),
    ("processor_late_events_total", ""),
    ("processor_published_seconds_count", ""),
    ("processor_batch_events_sum", ""),
)
BY = {
    "filter_id": "vf",
    "filter_version": 1,
    "filter_name": "n",
    "count": 2,
    "threshold": 1,
    "window_ms": 1,
}
NOW = datetime.fromtimestamp(time.time_ns() // 1_000_000_000 - 300, UTC)


def event(event_id: str, lead: str, after_ms: int = 0, **metadata: str) -> Message:
    """A page view."""
    said = {
        "id": event_id,
        "org_unit": "acme",
        "lead_id": lead,
        "event_type": "page_view",
        "timestamp": (NOW + timedelta(milliseconds=after_ms)).isoformat(timespec="milliseconds"),
        "metadata": metadata,
    }
    return Message(json.dumps(said).encode(), b"k", partition=0)


def merge(target: str, source: str) -> Message:
    """A request to merge."""
    said = {"org_unit": "acme", "target_lead_id": target, "source_lead_ids": [source]}
    return Message(json.dumps(said).encode(), b"acme", partition=0)


def apply(world: World, text: str, folder: Path) -> None:
    """Puts filters in force."""
    (folder / "filters.yaml").write_text(text)
    processor(world.environment(), "filters", "apply", str(folder / "filters.yaml"))


def test_every_metric_that_is_declared_moves_in_a_test_of_this_module() -> None:
    """And each in one place."""
    listed = [next(iter(one.collect())).name for moved in MOVED.values() for one in moved]
    assert sorted(listed) == sorted(declared())


async def test_verdicts_are_counted_once_each_by_what_they_are(
    world: World, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Reasons, kinds of filters, dead letters by stage, duplicates, late events, batches and ages."""
    await world.create_topics(1)
    await _take_at_most(world, world.enriched, 20_000)
    worker = start_worker(world.environment())
    await worker.ready()
    async with watched(of(worker), "", MOVED["verdicts"]) as watch:
        assert await watch.value("processor_build_info", version=version("processor")) == 1
        assert await watch.value("processor_rebalances_total") == 1
        before = await watch.value("processor_rules_revision")
        apply(world, FILTERS, tmp_path)
        await until(lambda: _above(watch, "processor_rules_revision", before))
        await _every_kind_of_event(world, watch)
    kinds = {name: by(watch.seen, name, label) for name, label in COUNTED}
    assert kinds == {
        "processor_events_total": {"none": 4, "inorganic": 2, "metadata_filter": 1},
        "processor_decisions_total": {"velocity": 2, "metadata": 1},
        "processor_dead_letters_total": {"parse": 2, "validate": 1, "publish": 1},
        "processor_duplicates_total": {"": 1},
        "processor_late_events_total": {"": 1},
        "processor_published_seconds_count": {"": 12},
        "processor_batch_events_sum": {"": 12},
    }
    stages = by(watch.seen, "processor_stage_seconds_count", "stage")
    assert stages.keys() == {"parse", "triage", "read", "decide", "record", "write", "publish"}


async def _take_at_most(world: World, topic: str, max_bytes: int) -> None:
    limit = {"max.message.bytes": str(max_bytes)}
    async with connected(Cluster(world.settings())) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])


async def _every_kind_of_event(world: World, watch: Watched) -> None:
    """Twelve messages of both topics, all of them answered."""
    sent = [
        event("a", "lead"),
        event("b", "lead", 1),
        event("c", "lead", 2, agent="a bot"),
        event("d", "bot", 3, agent="a bot"),
        event("a", "lead", 4),
        event("large", "other", text="x" * 30_000),
        Message(b"{", b"k", partition=0),
        Message(b"{}", b"k", partition=0),
    ]
    await produce(world.kafka, world.raw, sent)
    await produce(world.kafka, world.merges, [Message(b"[]", b"acme"), merge("lead", "bot")])
    await until(lambda: _above(watch, "processor_batch_events_sum", 9))
    late = event("late", "lead", -3 * 3_600_000)
    await produce(world.kafka, world.raw, [event("after", "lead", 60_000), late])
    await until(lambda: _above(watch, "processor_batch_events_sum", 11))


async def _above(watch: Watched, name: str, value: float) -> bool:
    return await watch.value(name) > value


async def test_what_a_merge_leaves_to_do_is_told_until_it_is_done(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """Rows to move, while somebody holds one of them, and changes to count, while somebody holds the counts."""
    await world.create_topics(1)
    worker = start_worker(world.environment())
    await worker.ready()
    connection = await asyncpg.connect(world.postgres)
    async with watched(of(worker), await of(worker)(), MOVED["merges"]) as watch:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7704, 0)")
            await produce(world.kafka, world.raw, [event(f"e-{n}", "source") for n in range(3)])
            await until(lambda: _above(watch, "processor_events_total", 2))
            await connection.execute("SELECT FROM events WHERE id = 'e-1' FOR UPDATE")
            await produce(world.kafka, world.merges, [merge("target", "source")])
            await until(lambda: _above(watch, "processor_pending_moves", 0))
            await until(lambda: _above(watch, "processor_uncounted_changes", 0))
            assert await watch.value("processor_moved_events_total") == 0
        await until(lambda: _above(watch, "processor_moved_events_total", 2), 20)
        for name in ("processor_pending_moves", "processor_uncounted_changes"):
            await until(partial(_is, watch, name, 0), 20)
    await connection.close()
    assert await watch.value("processor_merges_total", kind="merge") == 1
    assert await watch.value("processor_moved_events_total") == 3


async def _is(watch: Watched, name: str, value: float) -> bool:
    return await watch.value(name) == value


async def test_what_holds_lanes_up_is_told_while_it_does(world: World, start_faulty: Start) -> None:
    """A lane that waits, one that is stopped and one that was fenced; what they have not done grows older."""
    await world.create_topics(3)
    worker = start_faulty(world, DEAD_LETTER_BYTES="2200000")
    await worker.ready()
    async with watched(of(worker), await of(worker)(), MOVED["faults"]) as watch:
        await produce(world.kafka, world.raw, [Message(b"a", b"k", 2), Message(b"b", b"k", 2)])
        await until(lambda: _above(watch, "processor_batch_events_sum", 1))
        await reset_offset(world.settings(), world.raw, 2, "1")
        await produce(world.kafka, world.raw, [Message(b"c", b"k", 2)])
        await until(lambda: _above(watch, "processor_fenced_total", 0), 20)
        held = [Message(b"size 1048576", b"k", 0), Message(b"retry 100000", b"k", 1)]
        await produce(world.kafka, world.raw, [*held, Message(b"behind", b"k", 1)])
        lags = {"0": 1.0, "1": 2.0, "2": 0.0}
        await until(lambda: _lags(watch, world, lags), 20)
        await until(lambda: _is(watch, "processor_stopped_lanes", 1))
        await until(lambda: _is(watch, "processor_waiting", 1))
        for partition in ("0", "1"):
            await _grows(watch, "processor_oldest_unprocessed_seconds", partition=partition)
        await _grows(watch, "processor_waiting_seconds_total", dependency="postgres")
        name = "processor_oldest_unprocessed_seconds"
        assert await watch.value(name, topic=world.raw, partition="2") == 0


async def _lags(watch: Watched, world: World, wanted: Mapping[str, float]) -> bool:
    await watch.look()
    name = "processor_lag_records"
    return wanted == {p: total(watch.seen, name, topic=world.raw, partition=p) for p in wanted}


async def _grows(watch: Watched, name: str, **labels: str) -> None:
    first = await watch.value(name, **labels)

    async def more() -> bool:
        return await watch.value(name, **labels) > first

    await until(more)


async def test_each_partition_is_told_of_by_the_worker_that_has_it_and_by_no_other(
    world: World, start_faulty: Start
) -> None:
    """So that sums over workers count nothing twice, also after partitions have changed hands."""
    await world.create_topics(4)
    workers = [start_faulty(world)]
    await workers[0].ready()
    everything = {(t, str(p)) for t in (world.raw, world.merges) for p in range(4)}
    await until(lambda: _told_by(workers, [8], everything), 20)
    workers.append(start_faulty(world))
    await until(lambda: _told_by(workers, [4, 4], everything), 30)
    assert await workers.pop().stop() == 0
    await until(lambda: _told_by(workers, [8], everything), 30)


async def _told_by(
    workers: Iterable[Worker], shares: list[int], everything: set[tuple[str, str]]
) -> bool:
    """Whether the workers tell of so many partitions each, and together of each once."""
    told = []
    for worker in workers:
        seen = samples(await of(worker)()).get("processor_lag_records", {})
        labels = [json.loads(sample[sample.index("{") :]) for sample in seen]
        told.append([(one["topic"], one["partition"]) for one in labels])
    together = [one for mine in told for one in mine]
    return [len(mine) for mine in told] == shares and sorted(together) == sorted(everything)


async def test_the_api_counts_requests_events_and_streams(api: Api) -> None:
    """By route and class of status; a client that does not read is cut off and counted."""

    async def scrape() -> str:
        return (await api.client.get("/metrics")).text

    async with watched(scrape, await scrape(), MOVED["http"]) as watch:
        ingested = await watch.value("processor_ingested_events_total")
        body = [{"lead_id": "L", "event_type": "page_view"}] * 3
        assert (await api.client.post("/ingest", json=body)).status_code == 202
        assert await watch.value("processor_ingested_events_total") == ingested + 3
        cut_off = await watch.value("processor_stream_cut_off_total")
        async with connection(api, buffer=4_096, limit=4_096):
            await until(lambda: _is(watch, "processor_stream_clients", 1))
            events = [enriched(f"evt-{n}", metadata=LARGE, partition=0) for n in range(100)]
            await publish(api.world, events)
            await until(lambda: _is(watch, "processor_stream_clients", 0), 20)
        assert await watch.value("processor_stream_cut_off_total") == cut_off + 1
        route = {"route": "/ingest", "method": "POST", "status": "2xx"}
        assert await watch.value("processor_http_requests_total", **route) >= 1


async def test_engagement_counts_organic_events_once_and_what_it_tells(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """Repeats and suppressed events are not counted, what is no event is; a first event is told of twice: lead and score.

    A place that is taken back is counted from again.
    """
    await world.create_topics(1)
    process = start_worker(world.environment(), "engagement")
    await process.ready(60)
    async with watched(of(process), "", MOVED["engagement"]) as watch:
        suppressed = enriched("two", suppression_reason="inorganic", suppressed_by=BY)
        foreign = Message(b"no event", b"L")
        await publish(world, [enriched("one"), enriched("one"), suppressed, foreign])
        await until(lambda: _is(watch, "processor_engagement_foreign_total", 1))
        await until(lambda: _is(watch, "processor_engagement_told_total", 2))
        assert await watch.value("processor_engagement_events_total") == 1
        assert await watch.value("processor_batch_events_sum") == 4
        connection = await asyncpg.connect(world.postgres)
        await connection.execute("UPDATE engagement_places SET next_offset = 0")
        await connection.close()
        await publish(world, [enriched("three")])
        await until(lambda: _is(watch, "processor_engagement_events_total", 2))
        assert await watch.value("processor_engagement_torn_total") == 1
