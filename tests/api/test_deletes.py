"""``DELETE /events/batch``: a tombstone for each, for good."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from processor.io.clock import now_ms
from tests import harness
from tests.api.client import Api, api
from tests.api.rows import row, store
from tests.harness_waiting import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e


async def delete(api: Api, body: Any) -> tuple[int, Any]:
    """Status and answer."""
    content = json.dumps(body) if body is not None else "no JSON"
    json_body = {"Content-Type": "application/json"}
    answer = await api.client.request("DELETE", "/events/batch", content=content, headers=json_body)
    return answer.status_code, answer.json()


async def test_the_known_examples(api: Api) -> None:
    """In the words of the contract; what is unknown is ignored without telling."""
    await store(api.database, [row(n, id=f"evt-{n}") for n in (123, 124, 126)])
    assert await delete(api, {"event_ids": ["evt-123", "evt-124", "evt-125"]}) == (
        200,
        {"deleted": 2},
    )
    assert await delete(api, {"event_ids": ["evt-123", "evt-124"]}) == (200, {"deleted": 0})
    refused = await api.bearing(None).request("DELETE", "/events/batch", json={"event_ids": []})
    assert refused.status_code == 401
    assert refused.json()["error"]["message"] == "Check authentication token"
    body = (await api.client.get("/events")).json()
    assert [event["id"] for event in body["events"]] == ["evt-126"]
    assert body["total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        None,
        "evt-1",
        {"event_ids": []},
        {"event_ids": None},
        {"event_ids": "evt-1"},
        {"event_ids": {"0": "evt-1"}},
        {"event_ids": [1]},
        {"event_ids": ["evt-1", None]},
        {"event_ids": ["x"] * 1001},
        {"event_ids": ["evt-1"], "more": [[]] * 30_000},
    ],
)
async def test_anything_but_an_array_of_1_to_1000_strings_is_refused(api: Api, body: Any) -> None:
    """In the words of the contract; nothing is deleted."""
    await store(api.database, [row(1, id="evt-1")])
    status, answer = await delete(api, body)
    assert status == 400
    assert answer["error"]["message"].startswith("Provide a valid array of event IDs")
    assert (await api.client.get("/events")).json()["total"] == 1


async def test_strange_ids_match_nothing(api: Api) -> None:
    """They are strings all the same."""
    ids = ["", "\0", "x" * 129, "\ud800", "' OR 1=1 --"]
    assert await delete(api, {"event_ids": [*ids, *["dup"] * 995]}) == (200, {"deleted": 0})


async def test_events_of_another_org_unit_stay(api: Api) -> None:
    """Without telling that they exist."""
    await store(api.database, [row(1, org_unit="other")])
    assert await delete(api, {"event_ids": ["evt-000001"]}) == (200, {"deleted": 0})
    other = await api.as_org_unit("other")
    assert (await other.get("/events")).json()["total"] == 1


async def test_a_deleted_event_keeps_a_tombstone_and_stays_deleted_when_its_message_is_replayed(
    api: Api, start_worker: Callable[..., harness.Worker]
) -> None:
    """Its payload is wiped; what was published stays published, and nothing is published again."""
    world = api.world
    body = {"id": "evt-1", "org_unit": "acme", "lead_id": "A", "event_type": "page_view"}
    message = harness.Message(
        json.dumps({**body, "metadata": {"secret": "x"}}).encode(), b"A", 0, now_ms()
    )
    ((_, offset),) = await harness.produce(world.kafka, world.raw, [message])
    worker = start_worker(world.environment())
    await worker.ready()
    await until(lambda: _total(api, 1))
    assert (await delete(api, {"event_ids": ["evt-1"]}))[1] == {"deleted": 1}
    kept = await api.database.fetch(
        "SELECT metadata::text, deleted_at IS NOT NULL FROM events WHERE id = 'evt-1'"
    )
    assert [tuple(row) for row in kept] == [("{}", True)]
    assert await worker.stop() == 0

    harness.processor(
        world.environment(), "offsets", "reset", "--topic", world.raw, "--partition", "0", "--to", str(offset)
    )  # fmt: skip
    again = harness.Message(message.value, b"A", 0)
    last = harness.Message(json.dumps({**body, "id": "evt-2"}).encode(), b"A", 0)
    await harness.produce(world.kafka, world.raw, [again, last])
    worker.start()
    assert await until(lambda: _published(world, 2), 30) == [b"evt-1", b"evt-2"]
    body = (await api.client.get("/events")).json()
    assert ([event["id"] for event in body["events"]], body["total"]) == (["evt-2"], 1)


async def _published(world: harness.World, count: int) -> list[bytes]:
    """The ids on the enriched topic, once there are so many."""
    records = await harness.read_topic(world.kafka, world.enriched)
    ids = [dict(record.headers)["event-id"] for record in records]
    return ids if len(ids) >= count else []


async def _total(api: Api, expected: int) -> bool:
    return bool((await api.client.get("/events")).json()["total"] == expected)
