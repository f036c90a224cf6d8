"""The watchers: a reader of both outputs, as any downstream service is one, and a look at the worker's metrics."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import orjson

from processor.demo.seen import Dead, Merged, Seen, Suppressed
from processor.demo.service import Service
from processor.failures import Retryable
from processor.io.kafka import Cluster, Tuning, translated
from processor.settings import Settings

METRICS_EVERY_S = 1.0
ANSWER_S = 20.0
LEAVE_S = 0.5
_POLL_MS = 200
_QUICK = Tuning(fetch_wait_ms=20)
MERGED = "Lead Merged"


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[Any]:
    """A reader of the enriched topic and the dead letters, from their beginning, read_committed."""
    consumer = Cluster(settings, _QUICK).reader()
    try:
        async with translated(ANSWER_S):
            await consumer.start()
        consumer.subscribe([settings.enriched_topic, settings.dead_topic])
        yield consumer
    finally:
        with suppress(Retryable):
            async with translated(LEAVE_S):
                await consumer.stop()


async def watch(consumer: Any, settings: Settings, seen: Seen, clock: Callable[[], int]) -> None:
    """Reads what is published until it is cancelled; `clock` gives the milliseconds that records have."""
    while True:
        for partition, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
            now, at = monotonic(), clock()
            for record in records:
                value = orjson.loads(record.value)
                if partition.topic == settings.dead_topic:
                    see_letter(seen, value)
                else:
                    see_event(seen, value, now, (at - record.timestamp) / 1000)


async def scrape(worker: Service, seen: Seen) -> None:
    """Reads the metrics until it is cancelled."""
    while True:
        seen.metrics = await worker.metrics() or seen.metrics
        await asyncio.sleep(METRICS_EVERY_S)


def see_event(seen: Seen, event: dict[str, Any], now: float, latency_s: float) -> None:
    """An enriched event was read."""
    seen.event(event["suppression_reason"], now, latency_s)
    merged = _merged(event) if event["event_type"] == MERGED else None
    if merged is not None:
        seen.merges += 1
        seen.merged.append(merged)
    by = event["suppressed_by"]
    if by is not None:
        seen.suppressed.append(
            Suppressed(
                event["received_at"][11:19],
                event["lead_id"],
                event["event_type"],
                event["suppression_reason"],
                by["filter_name"],
                by.get("count"),
                by.get("threshold"),
            )
        )


def _merged(event: Mapping[str, Any]) -> Merged | None:
    """None where a producer gave its event the type of a merge's."""
    match event["metadata"]:
        case {"source_lead_ids": [*sources], "events_moved": int(moved)}:
            return Merged(event["lead_id"], tuple(map(str, sources)), moved)
        case _:
            return None


def see_letter(seen: Seen, letter: dict[str, Any]) -> None:
    """A dead letter was read."""
    seen.letters += 1
    seen.dead.append(Dead(letter["stage"], letter["error"], letter["reason"]))
