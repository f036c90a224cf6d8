"""The past of leads with more rows than a rebuild may pass over: what is found by slices is what all rows say."""

import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from processor.io.past import Contents, Past, Window
from processor.io.postgres import Postgres
from processor.pure.past import Fold
from processor.pure.types import VelocityFilter

pytestmark = pytest.mark.contract
EVENTS = 16_000
START = 1_772_000_000_000
HOUR = 3_600_000
INSERT = """
INSERT INTO events (org_unit, id, lead_id, original_lead_id, event_type, metadata, occurred_at, received_at, source_topic,
    source_partition, source_offset, batch, rules, counted, exceeded)
SELECT 'acme', id, lead, original, type, '{}', ms_event(at), now(), 'events.raw', 0, n, n, 1, counted,
    CASE WHEN burst <> '' THEN jsonb_build_object('3', burst) END
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[], $8::text[])
    AS e (id, lead, original, type, at, n, counted, burst)
"""
MERGE = (
    {
        "message_id": "m-1",
        "org_unit": "acme",
        "kind": "merge",
        "target": "ld",
        "sources": ["old"],
        "occurred_at": START,
        "topic": "leads.merges",
        "partition": 0,
        "offset": 0,
    },
    {"survivor": "ld", "named": ["old"], "joined": {"old": ["old"]}, "parted": {}},
)
Row = tuple[str, str, str | None, str, int, int, bool, str]


def velocity(threshold: int, window_ms: int, newest: int | None = None) -> VelocityFilter:
    """A filter on page views; keep-first where `newest` says that rows are older than it."""
    kept = newest is not None
    return VelocityFilter("vf", "v", 1, "Page View", threshold, window_ms, kept, 3, newest)


def past_of(seed: int) -> list[Row]:
    """Events of a survivor and of a lead whose rows are still to move, in bursts and calm hours, late ones among them."""
    r = random.Random(seed)
    rows: list[Row] = []
    at = START
    for n in range(EVENTS):
        at += r.choice((0, 1, 40, 800)) if n % 8_000 else HOUR
        lead, original = r.choice((("ld", None), ("ld", "old"), ("old", None), ("mate", None)))
        type_ = "Page View" if r.random() < 0.9 else "Email Open"
        late = at - r.randrange(600_000) if r.random() < 0.05 else at
        burst = f"b{n}" if r.random() < 0.3 else ""
        rows.append((f"e{n:05}", lead, original, type_, late, n, r.random() < 0.95, burst))
    return rows


def members_of(rows: Sequence[Row]) -> list[Row]:
    """Those that windows of ld count."""
    return [
        row
        for row in rows
        if row[3] == "Page View" and row[6] and (row[2] or row[1]) in {"ld", "old"}
    ]


def ends(found: Sequence[tuple[int, str]], width: int, keep: int) -> set[tuple[int, str]]:
    """Of each slice the first and the last `keep`."""
    slices: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for one in sorted(found):
        slices[one[0] // width].append(one)
    return {one for own in slices.values() for one in (*own[:keep], *own[-keep:])}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """More than a rebuild passes over."""
    return past_of(5)


@pytest.fixture
async def past(database: str, rows: list[Row]) -> AsyncIterator[Past]:
    """With `old` merged into `ld`, its rows still to move."""
    connection = await asyncpg.connect(database)
    await connection.execute(INSERT, *map(list, zip(*rows, strict=True)))
    await connection.fetchval("SELECT record_merge(0, $1, $2, 10)", *map(json.dumps, MERGE))
    await connection.close()
    postgres = await Postgres.connect(database)
    yield Past(postgres)
    await postgres.close()


def newest(rows: Sequence[Row]) -> int:
    """The time of the newest member."""
    return max(row[4] for row in members_of(rows))


async def built(past: Past, filters: Sequence[VelocityFilter], at: int) -> list[Contents]:
    """The contents of so many windows of ld, built in one call."""
    return await past.windows([(Window("acme", "ld", 1, one), at) for one in filters], HOUR)


@pytest.mark.parametrize(
    ("threshold", "window_ms"),
    [(0, 1_000_000), (3, HOUR), (50, 30 * 24 * HOUR), (10_000, 7 * HOUR)],
)
async def test_of_each_slice_above_the_floor_the_first_and_last_members_are_held(
    past: Past, rows: list[Row], threshold: int, window_ms: int
) -> None:
    """Also those that stand under a lead that was merged away."""
    (held,) = await built(past, [velocity(threshold, window_ms)], newest(rows))
    assert held.floor == newest(rows) - window_ms - HOUR
    above = [(row[4], row[0]) for row in members_of(rows) if row[4] > held.floor]
    assert set(held.members) == ends(above, window_ms, threshold + 1)
    assert (
        len(held.members)
        == len(set(held.members))
        <= 2 * (threshold + 1) * (-(-HOUR // window_ms) + 3)
    )


async def test_windows_that_would_hold_too_much_together_are_held_less_far_back_but_whole(
    past: Past, rows: list[Row]
) -> None:
    """Their floor says from when on; never above what events of the last window need."""
    wide = [velocity(2, 2_000 + n) for n in range(50)]
    for one, held in zip(wide, await built(past, wide, newest(rows)), strict=True):
        above = [(row[4], row[0]) for row in members_of(rows) if row[4] > held.floor]
        assert set(held.members) == ends(above, one.window_ms, 3)
        assert newest(rows) - HOUR < held.floor < newest(rows) - 2 * one.window_ms


async def test_of_exceeding_events_the_first_and_last_of_each_slice_are_held(
    past: Past, rows: list[Row]
) -> None:
    """Whatever the rows between them say."""
    width = 60_000
    (held,) = await built(past, [velocity(2, width, START - 1)], newest(rows))
    stored = [
        (row[4], row[7])
        for row in rows
        if row[7] and row[3] == "Page View" and (row[2] or row[1]) in {"ld", "old"}
    ]
    wanted = ends([one for one in stored if one[0] > held.floor], width, 1)
    assert {at for at, _, _ in held.exceeding} == {at for at, _ in wanted}
    assert {(at, burst) for at, _, burst in held.exceeding} <= set(stored)


@pytest.mark.parametrize(("threshold", "window_ms"), [(5, 60_000), (200, 60_000), (40, HOUR)])
async def test_what_is_older_than_a_filter_is_folded_from_the_end_of_a_burst_on_as_from_the_beginning(
    past: Past, rows: list[Row], threshold: int, window_ms: int
) -> None:
    """A calm stretch divides bursts, whatever came before it."""
    one = velocity(threshold, window_ms, newest(rows))
    fold = Fold(one)
    fold.add([(row[4], row[0], "ld", row[5]) for row in members_of(rows)])
    (held,) = await built(past, [one], newest(rows))
    folded = {fact for fact in fold.exceeding(["ld"]) if fact[0] > held.floor}
    by_rows = {row[0] for row in rows if row[7]}
    assert {fact for fact in held.exceeding if fact[1] not in by_rows or fact in folded} == folded
