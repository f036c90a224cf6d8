"""The check at the end: waits until everything is committed, reads all there is, and lets account and recount judge."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import orjson

from processor.demo.account import (
    MERGED,
    Account,
    Fields,
    Found,
    Letter,
    Message,
    Row,
    account,
    merged_digest,
)
from processor.demo.ledger import Place, Sent, digest, milliseconds, payload_digest
from processor.demo.recount import recount
from processor.demo.recount_check import Report
from processor.demo.watching import reading
from processor.failures import Failure
from processor.io import sandbox
from processor.io.kafka import Cluster, Partition, translated
from processor.settings import Settings

SETTLED_WITHIN_S = 60.0
VISIBLE_WITHIN_S = 10.0
"""The marks of a transaction are written after its commit was answered."""
_ANSWER_S = 20.0
_POLL_S = 0.05
_POLL_MS = 200
ROWS = """
    SELECT source_topic, source_partition, source_offset, lead_id, original_lead_id, org_unit, id, event_type,
           metadata::text AS metadata, suppression_reason, suppressed_by::text AS suppressed_by,
           (extract(epoch FROM occurred_at) * 1000)::bigint AS created_at,
           (extract(epoch FROM received_at) * 1000)::bigint AS received_at
      FROM events
"""
REDIRECTS = "SELECT org_unit, from_lead, to_lead FROM lead_redirects"
MOVES = "SELECT count(*) FROM lead_moves"


Committed: TypeAlias = Callable[[Partition], Awaitable[int | None]]


@dataclass(frozen=True)
class Verdict:
    """Of the whole run."""

    account: Account
    recount: Report
    rows: int

    @property
    def differences(self) -> list[str]:
        """All that does not agree, a sentence each."""
        said = [f"event {m.id} of {m.org_unit}: {m.problem}" for m in self.recount.mismatches]
        return [*self.account.differences, *said, *self._unchecked()]

    def _unchecked(self) -> Iterator[str]:
        """Filters do not change while a run is played that is checked, so there are no older rules to judge by."""
        missed = self.rows - self.recount.checked
        if missed:
            yield f"{missed} verdicts were not checked, {self.recount.older} of them by older rules"


async def settled(settings: Settings, sent: Sequence[Sent]) -> None:
    """Returns when the worker has committed all that was sent and moved all rows of merges; raises `Failure`."""
    ends = {Partition(s.place.topic, s.place.partition): 0 for s in sent}
    for place in (s.place for s in sent):
        source = Partition(place.topic, place.partition)
        ends[source] = max(ends[source], place.offset + 1)
    try:
        async with asyncio.timeout(SETTLED_WITHIN_S), _committed(settings) as committed:
            for source, end in ends.items():
                await _until(partial(_reached, committed, source, end))
            async with sandbox.reading(settings.database_url.get_secret_value()) as connection:
                await _until(partial(_moved, connection))
    except TimeoutError as error:
        reason = f"the worker has not caught up within {SETTLED_WITHIN_S:g} s"
        raise Failure(reason) from error


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await holds():
            return
        await asyncio.sleep(_POLL_S)


async def _reached(committed: Committed, source: Partition, end: int) -> bool:
    return (await committed(source) or 0) >= end


async def _moved(connection: Any) -> bool:
    return not await connection.fetchval(MOVES)


@asynccontextmanager
async def _committed(settings: Settings) -> AsyncIterator[Committed]:
    """How to ask for the group's committed offset, without joining it."""
    consumer = Cluster(settings).consumer()
    async with translated(_ANSWER_S):
        await consumer.start()
    try:
        yield consumer.committed
    finally:
        await consumer.stop()


async def check(settings: Settings, sent: Sequence[Sent]) -> Verdict:
    """Reads everything back and compares it; the worker has ended."""
    async with sandbox.reading(settings.database_url.get_secret_value()) as connection:
        rows = [_row(record) for record in await connection.fetch(ROWS)]
        redirects = {(o, f): to for o, f, to in await connection.fetch(REDIRECTS)}
        report = await recount(connection, settings.filter_order)
    bad = sum(s.kind == "bad" for s in sent)
    messages, letters = await _published(settings, len(rows), bad)
    return Verdict(account(sent, Found(rows, messages, letters, redirects)), report, len(rows))


async def _published(
    settings: Settings, events: int, bad: int
) -> tuple[list[Message], list[Letter]]:
    """Everything both outputs hold once they hold that much, or after `VISIBLE_WITHIN_S`."""
    messages: list[Message] = []
    letters: list[Letter] = []
    loop = asyncio.get_running_loop()
    async with reading(settings) as consumer:
        deadline = loop.time() + VISIBLE_WITHIN_S
        while loop.time() < deadline:
            found = await consumer.getmany(timeout_ms=_POLL_MS)
            for partition, records in found.items():
                if partition.topic == settings.dead_topic:
                    letters += map(_letter, records)
                else:
                    messages += map(_message, records)
            if found:
                deadline = loop.time() + VISIBLE_WITHIN_S
            elif len(messages) >= events and len(letters) >= bad and await _at_end(consumer):
                break
    return messages, letters


async def _at_end(consumer: Any) -> bool:
    partitions = consumer.assignment()
    ends: Mapping[Any, int] = await consumer.end_offsets(partitions)
    return all([await consumer.position(p) >= ends[p] for p in partitions])


def _row(r: Mapping[str, Any]) -> Row:
    metadata = orjson.loads(r["metadata"])
    by = r["suppressed_by"]
    fields = Fields(
        r["org_unit"],
        r["id"],
        r["event_type"],
        digest(metadata),
        r["suppression_reason"],
        digest(None if by is None else orjson.loads(by)),
        r["created_at"],
        r["received_at"],
    )
    place = Place(r["source_topic"], r["source_partition"], r["source_offset"])
    return Row(place, r["lead_id"], r["original_lead_id"], fields, _merged(fields, metadata))


def _merged(fields: Fields, told: Mapping[str, Any]) -> bytes | None:
    """None also of an event that a producer gave the type of a merge's."""
    if fields.event_type != MERGED or "requested_by" not in told:
        return None
    sources = told.get("source_lead_ids")
    return merged_digest(sources, told["requested_by"]) if isinstance(sources, list) else None


def _message(record: Any) -> Message:
    value = orjson.loads(record.value)
    fields = Fields(
        value["org_unit"],
        value["id"],
        value["event_type"],
        digest(value["metadata"]),
        value["suppression_reason"],
        digest(value["suppressed_by"]),
        milliseconds(value["created_at"]),
        milliseconds(value["received_at"]),
    )
    headers = {name: held.decode() for name, held in record.headers}
    leads = value["lead_id"], value["original_lead_id"]
    return Message(*leads, fields, record.key.decode(), headers)


def _letter(record: Any) -> Letter:
    value = orjson.loads(record.value)
    payload = value["payload_base64"]
    content = None if payload is None else base64.b64decode(payload)
    place = Place(value["topic"], value["partition"], value["offset"])
    return Letter(place, payload_digest(record.key, content))
