"""A filter that is not saved over stored events: rows stream through the fold of `processor.pure.preview`.

One transaction, one core of Postgres, bounded memory here: a chunk of rows, the window of one lead, an id of each lead that would be
suppressed.  Between chunks everybody else has their turn.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from msgspec import Struct

from processor.io.filters import Definition
from processor.io.postgres import QUERIES, Connection, Postgres
from processor.pure.attributes import compile_conditions
from processor.pure.parts import parts
from processor.pure.preview import Preview, stored_event
from processor.pure.tally import Sample, Tally
from processor.pure.types import AttributeFilter, OrgRules, Rules, VelocityFilter
from schemas import VelocityDefinition

_ROWS = 500
_METADATA = 64 << 10
"""Bytes of metadata that are judged at once; rows with more of it are large."""
_LARGE_ROWS = 8
"""Large rows at a time: jsonb writes each 1e308 as 309 digits, 4.5 MB of the most that comes in."""
_TIMEOUT_S = 150
_REVISION = 1


class Scan(Struct, frozen=True):
    """Which filter over which events."""

    org_unit: str
    definition: Definition
    since: int
    """Occurred then or later, ms."""
    until: int
    """Occurred before, ms."""
    filter_id: str | None
    """The filter it would replace."""


class Found(Struct, frozen=True):
    """The answer."""

    tally: Tally
    elsewhere: int
    """Events of other types that the filter it would replace suppresses."""
    samples: Sequence[tuple[Sample, Any]]
    """With the rows as listings have them, and burst_id where the burst began in the range."""


async def run(postgres: Postgres, scan: Scan, goes_on: Callable[[], Awaitable[None]]) -> Found:
    """Judges every event of the range; `goes_on` is asked now and then, and ends it by an exception.  Raises `Retryable`."""
    tally = Tally()
    velocity, rules = await asyncio.to_thread(_rules, scan)
    preview = Preview(rules, velocity)
    async with postgres.of_org_unit(scan.org_unit, long=True) as connection:
        await connection.execute(QUERIES["preview_settings"])
        async for rows in _streamed(connection, scan, velocity):
            for part in parts(rows, lambda row: len(row["metadata"] or ""), _METADATA):
                if (
                    velocity is None
                ):  # patterns may take long; RE2 leaves the interpreter to others meanwhile
                    await asyncio.to_thread(_judge, preview, tally, part, scan)
                else:
                    _judge(preview, tally, part, scan)
                    await asyncio.sleep(0)
            await goes_on()
        return Found(
            tally, await _elsewhere(connection, scan), await _samples(connection, scan, tally)
        )


def _rules(scan: Scan) -> tuple[VelocityFilter | None, Rules]:
    """Rules that hold nothing but the filter, switched on."""
    wanted = scan.definition
    velocity = None
    if isinstance(wanted, VelocityDefinition):
        velocity = VelocityFilter(
            id=wanted.id,
            name=wanted.name,
            version=_REVISION,
            event_type=wanted.event_type,
            threshold=wanted.threshold,
            window_ms=wanted.window_ms,
            keep_first=wanted.keep_first,
            revision=_REVISION,
            newest=None,
        )
        org_rules = OrgRules(velocity={wanted.event_type: (velocity,)}, attributes={})
    else:
        matches = compile_conditions(wanted.conditions)
        attribute = AttributeFilter(wanted.id, wanted.name, _REVISION, wanted.event_type, matches)
        org_rules = OrgRules(velocity={}, attributes={wanted.event_type: (attribute,)})
    return velocity, Rules(_REVISION, "velocity,metadata", {scan.org_unit: org_rules})


async def _streamed(
    connection: Connection, scan: Scan, velocity: VelocityFilter | None
) -> AsyncIterator[Sequence[Any]]:
    since, until = scan.since, scan.until
    if velocity is not None:
        # Judging takes the members in (t - W, t], and for bursts the exceeding events less than W away, each with its members.
        reach = 2 if velocity.keep_first else 1
        since -= reach * velocity.window_ms
        until += (reach - 1) * velocity.window_ms
    asked = (scan.org_unit, scan.definition.event_type, since, until, scan.filter_id)
    if velocity is None:
        async for rows in _with_metadata(connection, asked):
            yield rows
        return
    cursor = await connection.cursor(QUERIES["preview_velocity"], *asked, timeout=_TIMEOUT_S)
    while rows := await cursor.fetch(_ROWS, timeout=_TIMEOUT_S):
        yield rows


async def _with_metadata(
    connection: Connection, asked: Sequence[Any]
) -> AsyncIterator[Sequence[Any]]:
    """Rows with their metadata: many at a time, but those where it is large few at a time."""
    query = QUERIES["preview_metadata"]
    cursor = await connection.cursor(query, *asked, _METADATA, None, timeout=_TIMEOUT_S)
    while rows := await cursor.fetch(_ROWS, timeout=_TIMEOUT_S):
        yield [row for row in rows if row["metadata"] is not None]
        large = [row["id"] for row in rows if row["metadata"] is None]
        for n in range(0, len(large), _LARGE_ROWS):
            ids = large[n : n + _LARGE_ROWS]
            yield await connection.fetch(query, *asked, _METADATA, ids, timeout=_TIMEOUT_S)


def _judge(preview: Preview, tally: Tally, rows: Sequence[Any], scan: Scan) -> None:
    """What the filter says of the next rows; those outside of the range, and tombstones, only count."""
    events = [
        (
            stored_event(
                scan.org_unit,
                (lead_id, event_id, event_type, orjson.loads(metadata) if metadata else {}, at),
            ),
            counted,
        )
        for lead_id, event_id, event_type, metadata, at, counted, *_ in rows
    ]
    tally.add(
        [
            (ruling, suppressed, bool(by_it))
            for ruling, (*_, at, _, deleted, suppressed, by_it) in zip(
                preview.judge(events), rows, strict=True
            )
            if scan.since <= at < scan.until and not deleted
        ]
    )


async def _elsewhere(connection: Connection, scan: Scan) -> int:
    if scan.filter_id is None or not scan.definition.event_type:
        return 0
    asked = (scan.org_unit, scan.definition.event_type, scan.since, scan.until, scan.filter_id)
    found: int = await connection.fetchval(QUERIES["preview_elsewhere"], *asked, timeout=_TIMEOUT_S)
    return found


async def _samples(
    connection: Connection, scan: Scan, tally: Tally
) -> Sequence[tuple[Sample, Any]]:
    samples = tally.samples
    rows = await connection.fetch(
        QUERIES["preview_samples"],
        scan.org_unit,
        [sample.id for sample in samples],
        [sample.burst_id for sample in samples],
        scan.since,
        scan.until,
    )
    return [(samples[row["n"] - 1], row) for row in rows]
