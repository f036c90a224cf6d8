"""Which rules each worker decides with, and that a change over HTTP is in force from its answer on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
import pytest

from processor.io import workers
from processor.io.rulebook import Rulebook
from tests import harness
from tests.api.client import Api, api

__all__ = ["api"]
pytestmark = pytest.mark.e2e

EVERYTHING = {"id": "vf", "name": "All", "event_type": "page_view", "threshold": 0, "window_ms": 1}


async def rules(api: Api) -> Any:
    """What the API tells."""
    answer = await api.client.get("/rules")
    assert answer.status_code == 200, answer.text
    return answer.json()


@asynccontextmanager
async def beating(api: Api, name: str) -> AsyncIterator[Rulebook]:
    """A worker that has nothing to do."""
    rulebook = await Rulebook.load(api.owner, "velocity,metadata")
    task = asyncio.create_task(workers.heart(api.owner, rulebook, name, lambda: None, 0.02))
    try:
        yield rulebook
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_idle_workers_notice_new_rules_and_tell(api: Api) -> None:
    """Each with the revision of the rules in its hands."""
    assert await rules(api) == {"revision": 1, "workers": []}
    async with beating(api, "a") as one, beating(api, "b"):
        before = await harness.until(lambda: shown(api, 1, 2))
        for revision in (2, 3):
            body = {**EVERYTHING, "id": f"vf-{revision}"}
            assert (await api.client.post("/velocity-filters", json=body)).status_code == 201
            found = await harness.until(partial(shown, api, revision, 2))
        assert (one.rules.revision, len(one.rules.org_units["acme"].velocity["Page View"])) == (
            3,
            2,
        )
    assert sorted(worker["id"] for worker in found) == ["a", "b"]
    for old, new in zip(before, found, strict=True):
        assert old["started_at"] == new["started_at"] <= old["seen_at"] < new["seen_at"]


async def shown(api: Api, revision: int, number: int) -> Any:
    """The workers, once all tell of this revision and it is in force."""
    found = await rules(api)
    held = [worker["rules_revision"] for worker in found["workers"]]
    return (
        found["workers"] if (found["revision"], held) == (revision, [revision] * number) else None
    )


async def test_a_worker_that_is_gone_is_not_shown_and_then_forgotten(api: Api) -> None:
    """After 30 s, and after a day; one that comes back is the same."""
    await api.database.execute(
        """INSERT INTO workers SELECT id, now() - interval '2 days', now() - age::interval, 1
        FROM (VALUES ('lost', '25 hours'), ('late', '31 s'), ('here', '20 s')) AS w (id, age)"""
    )
    assert [worker["id"] for worker in (await rules(api))["workers"]] == ["here"]
    async with beating(api, "late"):
        await harness.until(lambda: shown(api, 1, 2))
        assert {worker["id"] for worker in (await rules(api))["workers"]} == {"here", "late"}
    kept = await api.database.fetch("SELECT id, started_at < now() - interval '1 day' FROM workers")
    assert {row[0]: row[1] for row in kept} == {"late": True, "here": True}


async def test_rules_of_a_restored_database_are_told_of_too(api: Api) -> None:
    """Where the revision went back."""
    await api.client.post("/velocity-filters", json=EVERYTHING)
    async with beating(api, "a"):
        await harness.until(lambda: shown(api, 2, 1))
        await api.database.execute("DELETE FROM filters; UPDATE rule_state SET revision = 1")
        await harness.until(lambda: shown(api, 1, 1))


def test_no_two_workers_have_a_name() -> None:
    """Also within a process."""
    assert workers.identity() != workers.identity()


async def test_a_change_is_in_force_from_its_answer_on(
    api: Api, start_worker: Callable[..., harness.Worker]
) -> None:
    """For a real worker: the first event produced after the answer is judged by it, and names its version."""
    worker = start_worker(api.world.environment())
    await worker.ready()
    for n in range(1, 4):
        if n == 1:
            answer = await api.client.post("/velocity-filters", json=EVERYTHING)
        else:
            change = {"name": f"All {n}"}
            answer = await api.client.patch("/velocity-filters/vf", json=change)
        assert answer.json()["version"] == n
        await produce(api, f"e{n}")
        (by,) = await harness.until(partial(suppressed_by, api, f"e{n}"), 20)
        assert (by["filter_id"], by["filter_version"]) == ("vf", n)
    await api.client.delete("/velocity-filters/vf")
    await produce(api, "last")
    assert await harness.until(lambda: suppressed_by(api, "last"), 20) == [None]
    await harness.until(lambda: shown(api, 5, 1))
    assert await worker.stop() == 0


async def produce(api: Api, event_id: str) -> None:
    """A page view."""
    event = {"id": event_id, "org_unit": "acme", "lead_id": "A", "event_type": "page_view"}
    await harness.produce(
        api.world.kafka, api.world.raw, [harness.Message(orjson.dumps(event), b"A")]
    )


async def suppressed_by(api: Api, event_id: str) -> list[Any]:
    """What its row says, once there is one."""
    query = "SELECT suppressed_by::text FROM events WHERE id = $1"
    rows = await api.database.fetch(query, event_id)
    return [orjson.loads(row[0]) if row[0] else None for row in rows]
