"""Previews: what a filter would have decided for the stored rows, held to real decisions and to brute force."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from processor.io.redis import Server
from processor.io.rulebook import Rulebook
from processor.pure.timestamps import to_text
from tests.api.client import Api, api
from tests.api.previewing import METADATA, START, VELOCITY, told
from tests.api.rows import row, store
from tests.contract.decision_world import _EMPTY, RealWorld

__all__ = ["api"]
pytestmark = pytest.mark.e2e


async def test_a_preview_tells_what_would_be_suppressed(api: Api) -> None:
    """How many, by day, the newest, and what it says of each."""
    day = START - START % 86_400_000
    times = [day, day + 1, day + 2, day + 3, day + 4, day + 86_400_000]
    await store(api.database, [row(n, occurred_at=at) for n, at in enumerate(times, 1)])
    found = await told(api, "velocity", VELOCITY)
    samples = found.pop("samples")
    assert found == {
        "events": 6,
        "suppressed": 2,
        "leads": 1,
        "by_day": [
            {"day": "2023-11-14", "events": 5, "suppressed": 2},
            {"day": "2023-11-15", "events": 1, "suppressed": 0},
        ],
        "changes": {"newly_suppressed": 2, "already_suppressed": 0, "no_longer_suppressed": 0},
    }
    assert samples[0] == {
        "id": "evt-000005",
        "lead_id": "A",
        "event_type": "Page View",
        "metadata": {},
        "suppression_reason": None,
        "original_lead_id": None,
        "created_at": to_text(day + 4),
        "would_be": {"suppression_reason": "inorganic", "count": 5},
    }
    assert [sample["id"] for sample in samples] == ["evt-000005", "evt-000004"]


def stream(r: random.Random) -> Sequence[dict[str, Any]]:
    """Events of few leads, some of them late, in the order they come."""
    return [
        {
            "lead_id": r.choice("ABCD"),
            "at": START + n * 20 - r.choice((0, 0, 0, 300, 3_000)),
            "event_type": r.choice(("Page View", "Page View", "Other")),
            "metadata": {"ua": r.choice(("Googlebot", "Mozilla"))},
        }
        for n in range(150)
    ]


def wanted_filter(r: random.Random) -> tuple[str, dict[str, Any]]:
    """A filter of either kind."""
    if r.random() < 0.3:
        return "metadata", {
            "id": "f",
            "name": "x",
            "event_type": r.choice(("", "other")),
            **METADATA,
        }
    threshold, window_ms = r.choice((0, 1, 3, 6)), r.choice((1, 40, 300, 1_000, 5_000))
    own = {"threshold": threshold, "window_ms": window_ms, "keep_first": r.random() < 0.6}
    return "velocity", {"id": "f", "name": "x", "event_type": "page_view", **own}


async def test_a_preview_says_what_was_really_decided(api: Api) -> None:
    """Rows that the real path has judged by the very filter: not one would change, in either kind, bursts, late events and all."""
    connection = await asyncpg.connect(api.world.postgres)
    server = await Server.connect(api.world.redis)
    suppressed = 0
    for seed in range(14):
        r = random.Random(seed)
        await connection.execute(_EMPTY)
        await server.client.each("FLUSHDB")
        world = RealWorld(api.owner, connection, server, r.choice((0, 500, 10_000)))
        world.rulebook = await Rulebook.load(api.owner, "velocity,metadata")
        kind, wanted = wanted_filter(r)
        await world.filters(wanted)
        await world.merge("A", "D")
        events = [world.event(f"{seed}-{n}", **one) for n, one in enumerate(stream(r))]
        while events:
            size = r.choice((1, 5, 40))
            await world.process(*events[:size])
            events = events[size:]
        found = await told(api, kind, wanted)
        judged = sum(reason is not None for reason in (await world.stored()).values())
        assert (found["suppressed"], found["changes"]) == (
            judged,
            {"newly_suppressed": 0, "already_suppressed": judged, "no_longer_suppressed": 0},
        ), (seed, wanted)
        suppressed += judged
        for sample in found["samples"]:
            assert sample["would_be"]["suppression_reason"] == sample["suppression_reason"]
    assert suppressed > 200
    await server.close()
    await connection.close()


def some_rows(r: random.Random) -> list[dict[str, Any]]:
    """Rows as they may be stored: merged leads on their way, tombstones, rows that windows never had, events of merges."""
    rows = []
    for n, one in enumerate(stream(r), 1):
        at, lead = one.pop("at"), one.pop("lead_id")
        matched, deleted = r.random() < 0.1, r.random() < 0.1
        more: dict[str, Any] = {"counted": not matched, "deleted": deleted}
        if matched:
            more["suppression_reason"] = "metadata_filter"
        elif r.random() < 0.3:
            more["suppression_reason"] = "inorganic"
            by = {"filter_id": r.choice(("f", "other")), "filter_version": 1, "filter_name": "x"}
            more["suppressed_by"] = by
        if lead == "B" and r.random() < 0.5:  # moved already
            more |= {"lead_id": "A", "original_lead_id": "B"}
        else:
            more["lead_id"] = lead
        one["metadata"] = {} if deleted else one["metadata"]
        rows.append(row(n, occurred_at=at, **one, **more))
    rows.append(row(900, id="merge", event_type="Lead Merged", occurred_at=START, counted=False))
    rows.append(
        row(901, id="as-if", occurred_at=START, counted=False)
    )  # only merges have such rows
    return rows


def brute(
    rows: Sequence[dict[str, Any]], wanted: Mapping[str, Any], since: int, until: int
) -> dict[str, Any]:
    """The semantics word by word, over all rows."""
    told: list[tuple[dict[str, Any], bool]] = []
    exceeding: list[tuple[str, int]] = []
    past: list[tuple[str, int]] = []
    for one in rows:
        root = "A" if "B" in (one.get("original_lead_id"), one["lead_id"]) else one["lead_id"]
        one["root"], at, suppressed = root, one["occurred_at"], False
        if "conditions" in wanted:
            typed = wanted["event_type"] in ("", one["event_type"])
            suppressed = typed and "bot" in one["metadata"].get("ua", "")
        elif one["counted"] and one["event_type"] == wanted["event_type"]:
            window = wanted["window_ms"]
            past.append((root, at))
            count = sum(lead == root and at - window < t <= at for lead, t in past)
            if count > wanted["threshold"]:
                near = any(lead == root and abs(t - at) < window for lead, t in exceeding)
                suppressed = near or not wanted["keep_first"]
                exceeding.append((root, at))
        told.append((one, suppressed))
    judged = [
        (one, suppressed)
        for one, suppressed in told
        if since <= one["occurred_at"] < until
        and not one["deleted"]
        and (one["counted"] or one.get("suppression_reason"))
    ]
    hits = [one for one, suppressed in judged if suppressed]
    return {
        "events": sum(wanted["event_type"] in ("", one["event_type"]) for one, _ in judged),
        "suppressed": len(hits),
        "leads": len({one["root"] for one in hits}),
        "samples": sorted(((one["occurred_at"], one["id"]) for one in hits), reverse=True)[:20],
        "changes": {
            "newly_suppressed": sum("suppression_reason" not in one for one in hits),
            "already_suppressed": sum("suppression_reason" in one for one in hits),
            "no_longer_suppressed": sum(
                one.get("suppressed_by", {}).get("filter_id") == "f" and not suppressed
                for one, suppressed in judged
            ),
        },
    }


async def test_a_preview_says_what_brute_force_says_of_a_range(api: Api) -> None:
    """What lies outside of it counts as far as windows reach; merged leads are one, wherever their rows stand."""
    await api.database.execute("INSERT INTO lead_redirects VALUES ('acme', 'B', 'A')")
    for seed in range(150):
        r = random.Random(seed)
        rows = some_rows(r)
        await api.database.execute("DELETE FROM events")
        await store(api.database, rows)
        kind, wanted = wanted_filter(r)
        since = START + r.choice((-10_000, r.randrange(0, 1_500), r.randrange(0, 1_500)))
        until_ms = START + r.choice((r.randrange(1_500, 3_000), 10_000))
        ranged = {"from": to_text(since), "to": to_text(until_ms)}
        found = await told(api, kind, wanted, **ranged)
        days = found.pop("by_day")
        assert sum(day["suppressed"] for day in days) == found["suppressed"]
        assert sum(day["events"] for day in days) == found["events"]
        samples = [(one["created_at"], one["id"]) for one in found["samples"]]
        normal = {**wanted, "event_type": wanted["event_type"].replace("_", " ").title()}
        expected = brute(rows, normal, since, until_ms)
        assert [one for _, one in samples] == [one for _, one in expected.pop("samples")], seed
        del found["samples"]
        assert found == expected, (seed, wanted)


async def test_a_burst_is_named_where_it_began_in_the_range(api: Api) -> None:
    """What came before the range would have to be read without end."""
    await store(api.database, [row(n, occurred_at=START + n * 10) for n in range(6)])
    wanted = {**VELOCITY, "threshold": 1, "window_ms": 15, "keep_first": True}
    whole = await told(api, "velocity", wanted)
    assert {one["would_be"]["burst_id"] for one in whole["samples"]} == {"evt-000001"}
    assert {one["would_be"]["suppression_reason"] for one in whole["samples"]} == {
        "inorganic_grouped"
    }
    rest = await told(api, "velocity", wanted, **{"from": to_text(START + 25)})
    assert (rest["events"], rest["suppressed"]) == (3, 3)
    assert {one["would_be"]["burst_id"] for one in rest["samples"]} == {None}


async def test_a_burst_after_the_range_groups_a_late_event_in_it(api: Api) -> None:
    """It was processed before, less than a window away."""
    await store(api.database, [row(n, occurred_at=START + at) for n, at in enumerate((15, 5))])
    wanted = {**VELOCITY, "threshold": 0, "window_ms": 20, "keep_first": True}
    ranged = {"from": to_text(START), "to": to_text(START + 10)}
    found = await told(api, "velocity", wanted, **ranged)
    assert (found["events"], found["suppressed"]) == (1, 1)
    assert found["samples"][0]["would_be"]["burst_id"] is None


async def test_events_of_another_type_are_no_longer_suppressed(api: Api) -> None:
    """Where the filter of that id watched it until now; without an id nothing is compared with it."""
    by = {"filter_id": "f", "filter_version": 1, "filter_name": "x"}
    more = {"suppression_reason": "inorganic", "suppressed_by": by}
    await store(api.database, [row(1, event_type="Other", **more), row(2, **more), row(3)])
    for filter_id, no_longer in (({"id": "f"}, 2), ({"id": "g"}, 0), ({}, 0)):
        found = await told(api, "velocity", {**VELOCITY, **filter_id})
        assert found["changes"]["no_longer_suppressed"] == no_longer


async def test_a_range_is_the_last_seven_days_unless_it_is_told(api: Api) -> None:
    """By created_at; from is included, to is not."""
    api.now.at = START
    day = 86_400_000
    ages = (0, day, 7 * day, 7 * day + 1, 20 * day)
    await store(api.database, [row(n, occurred_at=START - age) for n, age in enumerate(ages)])
    wanted = {**METADATA, "enabled": False}
    for ranged, events in (
        ({}, 3),
        ({"range": "last_7d"}, 3),
        ({"range": "last_30d"}, 5),
        ({"range": "today"}, 1),
        ({"from": to_text(START - day)}, 2),
        ({"from": to_text(START - day), "to": to_text(START)}, 1),
        ({"from": to_text(START - day).replace("Z", "+00:00"), "to": "9999-12-31T23:59:59Z"}, 2),
    ):
        body = {"filter": wanted, **ranged}
        answer = await api.client.post("/metadata-filters/preview", json=body)
        assert answer.json()["events"] == events, ranged
