"""Hostile texts as org units, leads, ids and types of real messages: the verdicts of whole workers are those of the oracle."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import harness
from tests.oracle_compare import rfc3339
from tests.oracle_parse import normalise
from tests.security.attacks import TEXTS
from tests.traffic import Record
from tests.traffic_bad import dumps
from tests.verdict_run import Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TAILS = ("", ":x", ":", ":x:x", "\x1f", "\n", "}:", "\x1fx", " ")
"""What is put behind an id, so that it is the beginning of another one."""
FAMILY = tuple(f"foo{tail}" for tail in TAILS)
LEADS = (*TEXTS, *FAMILY, *(f"{text}:x" for text in TEXTS))
ORG_UNITS = (*TEXTS, *FAMILY)
WINDOW_MS = 1_000


def keep_first(filter_id: str, name: str, event_type: str) -> dict[str, Any]:
    """Two events of a lead within a second are a burst."""
    own = {"threshold": 1, "window_ms": WINDOW_MS, "keep_first": True}
    return {"id": filter_id, "name": name, "event_type": event_type, **own}


def filters() -> dict[str, Any]:
    """Each org unit watches page views, and the type that is called as it is."""
    return {
        "org_units": {
            name: {
                "velocity_filters": [
                    keep_first("vf", name, "page_view"),
                    *([keep_first("vf-own", name, name)] if normalise(name) else ()),
                ]
            }
            for name in ("acme", *ORG_UNITS)
        }
    }


def events(turn: int, start: int) -> Iterator[dict[str, Any]]:
    """One of each lead in turn, thrice, and of each org unit what it is called: the leads' bursts are never all in one batch."""
    for n in range(3):
        at = start + WINDOW_MS * turn // 2 + 100 * n
        for lead in LEADS:
            yield event("acme", lead, "page_view", f"{lead}{turn}{n}", at)
        for name in ORG_UNITS:
            yield event(name, name, name, f"{name}{turn * n}", at)
            yield event(name, f"{name}:x", "page_view", f"{turn}{n}{name}", at)


def event(org_unit: str, lead: str, event_type: str, event_id: str, at: int) -> dict[str, Any]:
    """Its metadata holds the lead as a key and as a value."""
    own = {"org_unit": org_unit, "lead_id": lead, "event_type": event_type, "id": event_id}
    return {**own, "timestamp": rfc3339(at), "metadata": {"k": lead, lead: event_id}}


def records(turn: int, start: int) -> Sequence[Record]:
    """All on one partition, so that even merged leads have an order."""
    now = time.time_ns() // 1_000_000
    return [Record(0, now, e["lead_id"].encode(), dumps(e)) for e in events(turn, start)]


def merges() -> Iterator[dict[str, Any]]:
    """Leads become those that begin like them, or are next to them; of some org units too."""
    pairs = [*zip(LEADS[::3], LEADS[1::3], strict=False), *((f, f"{f}:x") for f in FAMILY)]
    for target, source in pairs:
        if target != source:
            yield merge("acme", target, source)
    for name in ORG_UNITS[::2]:
        yield merge(name, name, f"{name}:x")


def merge(org_unit: str, target: str, source: str) -> dict[str, Any]:
    """Asked for by a text, too."""
    own = {"org_unit": org_unit, "target_lead_id": target, "source_lead_ids": [source]}
    return {**own, "requested_by": source}


async def test_every_verdict_on_hostile_ids_is_the_oracles(
    world: harness.World, start_worker: Callable[..., harness.Worker], tmp_path: Path
) -> None:
    """Rows, messages and dead letters, before and after merges, and after Redis has lost all windows."""
    await world.create_topics(1)
    run, start = Run(world, tmp_path), time.time_ns() // 1_000_000 - 60_000
    await run.apply(filters())
    await run.work(start_worker)
    for turn in range(2):
        await run.send(records(turn, start))
        await run.settled()
    await run.merge(*merges())
    await run.settled()
    await run.send(records(2, start))
    await run.settled()
    harness.flush_redis(world.redis)
    await run.send(records(3, start))
    await run.settled()
    await run.check()
    rows = await run.rows()
    reasons = Counter(row["suppression_reason"] for row in rows)
    assert min(reasons[None], reasons["inorganic_grouped"]) > len(LEADS), reasons
    assert {row["org_unit"] for row in rows} >= {*ORG_UNITS}
