"""Merges and unmerges with a worker that does them."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from tests.api.client import Api, api
from tests.api.merging import ask, done, leads, over, progress, rows, send
from tests.harness import Message, Worker, hour_ago, produce, until

__all__ = ["api"]
pytestmark = pytest.mark.e2e


@pytest.fixture
async def working(api: Api, start_worker: Callable[..., Worker]) -> AsyncIterator[Api]:
    """The API beside a worker."""
    worker = start_worker(api.world.environment())
    await worker.ready(40)
    yield api
    assert await worker.stop() == 0


async def test_a_merge_moves_the_events_and_an_unmerge_takes_exactly_that_back(
    working: Api,
) -> None:
    """The way of 202, progress, listing and back, also for what came in between."""
    api = working
    await send(api, [("a1", "A"), ("b1", "B"), ("b2", "B"), ("c1", "C")])
    before = await rows(api)
    merged = await done(api, "/leads/merge", "A", "B", "nobody", "B")
    assert merged | {"mergeId": "", "requestedAt": "", "committedAt": ""} == {
        "mergeId": "",
        "kind": "merge",
        "status": "done",
        "targetLeadId": "A",
        "sourceLeadIds": ["B", "nobody"],
        "survivorLeadId": "A",
        "mergedLeadIds": ["B", "nobody"],
        "eventsMoved": 2,
        "eventsLeft": 0,
        "requestedBy": "ann",
        "requestedAt": "",
        "committedAt": "",
    }
    assert await rows(api) == before | {"b1": ("A", "B"), "b2": ("A", "B")}
    named = await api.client.get("/events/B")
    assert named.json()["events"] == (await api.client.get("/events/A")).json()["events"]
    told = named.json()["events"][0]
    assert (told["id"], told["event_type"]) == (merged["mergeId"], "Lead Merged")
    assert told["metadata"]["requested_by"] == "ann"
    await send(api, [("b3", "B")])
    assert (await rows(api))["b3"] == ("A", "B")

    parted = await done(api, "/leads/unmerge", "A", "B")
    assert (parted["status"], parted["kind"], parted["eventsMoved"]) == ("done", "unmerge", 3)
    assert await rows(api) == before | {"b3": ("B", None)}
    assert (await api.client.get("/events/B")).json()["total"] == 3
    again = await api.client.post("/leads/unmerge", json=leads("A", "B", "nobody"))
    assert again.status_code == 409
    assert again.json()["error"] == {"code": "conflict", "message": "Not merged into A: B"}


async def test_chains_come_apart_where_they_were_joined(working: Api) -> None:
    """A into B, B into C: taking B out of C takes A along, and C keeps what was merged into it."""
    api = working
    await send(api, [("a1", "A"), ("b1", "B"), ("c1", "C"), ("d1", "D")])
    before = await rows(api)
    await done(api, "/leads/merge", "B", "A")
    joined = await rows(api)
    await done(api, "/leads/merge", "C", "B")
    await done(api, "/leads/merge", "A", "D")  # the survivor is C by now
    assert await rows(api) == {
        "a1": ("C", "A"), "b1": ("C", "B"), "c1": ("C", None), "d1": ("C", "D"),
    }  # fmt: skip
    await send(api, [("a2", "A")])
    await done(api, "/leads/unmerge", "C", "B")
    assert await rows(api) == joined | {"d1": ("C", "D"), "a2": ("B", "A")}
    await done(api, "/leads/unmerge", "B", "A")
    assert (await api.client.post("/leads/unmerge", json=leads("A", "D"))).status_code == 409
    await done(api, "/leads/unmerge", "C", "D")
    assert await rows(api) == before | {"a2": ("A", None)}


async def test_a_merge_that_changes_nothing_is_a_success_without_effect(working: Api) -> None:
    """Itself, again, in a circle: accepted, and told as what it is."""
    await send(working, [("a1", "A"), ("b1", "B")])
    await done(working, "/leads/merge", "A", "B")
    merged = await rows(working)
    for target, source in (("A", "A"), ("A", "B"), ("B", "A")):
        found = await done(working, "/leads/merge", target, source)
        assert (found["status"], found["eventsMoved"], found["mergedLeadIds"]) == ("no_op", 0, [])
        assert found["survivorLeadId"] == "A"
    assert await rows(working) == merged


async def test_a_merge_of_upstream_has_progress_too(working: Api) -> None:
    """Its id is that of its event; nobody in particular asked for it."""
    api = working
    await send(api, [("b1", "B")])
    value = b'{"org_unit":"acme","target_lead_id":"A","source_lead_ids":["B"]}'
    at = hour_ago()
    await produce(api.world.kafka, api.world.merges, [Message(value, b"acme", timestamp=at)])

    async def told() -> str:
        events = (await api.client.get("/events?event_type=lead_merged")).json()["events"]
        return events[0]["id"] if events else ""

    found = await over(api, await until(told, 30))
    assert (found["status"], found["eventsMoved"]) == ("done", 1)
    requested = datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (found["requestedBy"], found["requestedAt"]) == (None, requested)


async def test_a_merge_is_pending_until_a_worker_comes(
    api: Api, start_worker: Callable[..., Worker]
) -> None:
    """The topic has it; another org unit and other ids find nothing."""
    merge_id = await ask(api, "/leads/merge", "A", "B")
    pending = await progress(api, merge_id)
    assert (pending["status"], pending["eventsMoved"], pending["committedAt"]) == (
        "pending", None, None,
    )  # fmt: skip
    assert (pending["targetLeadId"], pending["sourceLeadIds"]) == ("A", ["B"])
    stranger = await api.as_org_unit("other")
    for client, wrong in ((stranger, merge_id), (api.client, "0" * 32), (api.client, "x%00y")):
        answer = await client.get(f"/leads/merges/{wrong}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    await start_worker(api.world.environment()).ready(40)
    assert (await over(api, merge_id))["status"] == "done"
    assert (await stranger.get(f"/leads/merges/{merge_id}")).status_code == 404
