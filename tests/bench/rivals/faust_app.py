"""Faust as its best users write it: a thousand events at a time, each step of all of them together; at least once.

Windows are sorted sets.  They keep what may still count for late events, and each verdict counts its own window, so that verdicts are
right as long as nothing fails; Redis and Postgres change apart, so a crash may leave them wrong.
"""

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import faust
import msgspec
from redis.asyncio import Redis

GIVEN = os.environ
STAGED = "CREATE TEMP TABLE staged (LIKE events) ON COMMIT DELETE ROWS"
BATCH = 1_000
WITHIN_S = 0.1
RULES = json.loads(Path(GIVEN["RULES"]).read_text())
VELOCITY = {one["event_type"]: (one["threshold"], one["window_ms"]) for one in RULES["velocity"]}
LATENESS_MS = RULES["lateness_ms"]


class Event(msgspec.Struct):
    """As it is read and, with its verdict, written."""

    id: str
    org_unit: str
    lead_id: str
    event_type: str
    metadata: dict[str, Any]
    created_at: datetime
    suppression_reason: str | None = None
    original_lead_id: str | None = None

    @property
    def at(self) -> int:
        """Milliseconds."""
        return round(self.created_at.timestamp() * 1000)

    @property
    def window(self) -> str:
        """The key of its window."""
        return f"{self.org_unit}|{self.lead_id}|{self.event_type}"


app = faust.App(
    GIVEN["CONSUMER_GROUP"],
    broker=f"kafka://{GIVEN['KAFKA_BOOTSTRAP_SERVERS']}",
    datadir=GIVEN["STATE_FOLDER"],
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    stream_buffer_maxsize=8_192,
    stream_wait_empty=False,
    broker_max_poll_records=2_000,
    producer_linger_ms=5,
    producer_max_batch_size=256 << 10,
    key_serializer="raw",
    value_serializer="raw",
)
raw = app.topic(GIVEN["RAW_TOPIC"], key_type=bytes, value_type=bytes)
enriched = app.topic(GIVEN["ENRICHED_TOPIC"], key_type=bytes, value_type=bytes)


async def judge(stream: Any) -> None:
    """The agent."""
    decoder, encoder = msgspec.json.Decoder(Event), msgspec.json.Encoder()
    redis = Redis.from_url(GIVEN["REDIS_URL"])
    postgres = await asyncpg.connect(GIVEN["DATABASE_URL"])
    await postgres.execute(STAGED)
    async for batch in stream.take_events(BATCH, within=WITHIN_S):
        events = [decoder.decode(one.value) for one in batch]
        await _give_verdicts(redis, events)
        await _store(postgres, events)
        for one, event in zip(batch, events, strict=True):
            await enriched.send(key=one.key, value=encoder.encode(event))


async def _give_verdicts(redis: Any, events: Sequence[Event]) -> None:
    watched = [event for event in events if event.event_type in VELOCITY]
    pipeline = redis.pipeline(transaction=False)
    for event in watched:
        _, window_ms = VELOCITY[event.event_type]
        pipeline.zadd(event.window, {event.id: event.at})
        pipeline.zcount(event.window, f"({event.at - window_ms}", event.at)
    for window, event in {event.window: event for event in watched}.items():
        reach_ms = VELOCITY[event.event_type][1] + LATENESS_MS
        pipeline.zremrangebyscore(window, "-inf", event.at - reach_ms)
        pipeline.pexpire(window, 2 * reach_ms)
    counts = (await pipeline.execute())[1 : 2 * len(watched) : 2]
    for event, count in zip(watched, counts, strict=True):
        if count > VELOCITY[event.event_type][0]:
            event.suppression_reason = "inorganic"
    for event in events:
        if event.suppression_reason is None and _matches(event.metadata):
            event.suppression_reason = "metadata_filter"


def _matches(metadata: dict[str, Any]) -> bool:
    return any(
        _holds(one["operator"], metadata.get(one["key"], ""), one["value"])
        for one in RULES["conditions"]
    )


def _holds(operator: str, text: str, value: str) -> bool:
    match operator:
        case "contains":
            return value in text
        case "starts_with":
            return text.startswith(value)
        case _:
            return text == value


async def _store(postgres: asyncpg.Connection, events: Sequence[Event]) -> None:
    rows = [
        (
            event.org_unit,
            event.id,
            event.lead_id,
            event.event_type,
            msgspec.json.encode(event.metadata).decode(),
            event.suppression_reason,
            event.created_at,
        )
        for event in events
    ]
    async with postgres.transaction():
        await postgres.copy_records_to_table("staged", records=rows)
        await postgres.execute("INSERT INTO events SELECT * FROM staged ON CONFLICT DO NOTHING")


app.agent(raw)(judge)

if __name__ == "__main__":
    app.main()
