"""``GET /stream``: what is committed is sent, to whom it belongs, chosen as asked."""

import json
from contextlib import AsyncExitStack

import pytest

from tests.api.client import Api, api
from tests.api.sse import enriched, listening, merged, publish
from tests.harness import Message, produce
from tests.harness_waiting import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e


async def test_every_event_of_the_org_unit_is_sent_as_it_is_on_the_topic(api: Api) -> None:
    """From the moment the answer has begun, and nothing of another org unit."""
    await publish(api.world, [enriched("before")])
    other = await api.as_org_unit("rival")
    async with listening(api.client) as stream, listening(other) as theirs:
        kind = stream.response.headers
        assert (kind["content-type"], kind["cache-control"]) == ("text/event-stream", "no-store")
        assert kind["x-accel-buffering"] == "no"
        sent = [enriched(f"evt-{n}", partition=n % 2) for n in range(20)]
        await publish(api.world, [*sent, enriched("foreign", "rival")])
        await stream.has(20)
        texts = [json.dumps(e.data, separators=(",", ":")).encode() for e in stream.events]
        for partition in (0, 1):  # the order of a partition is kept
            mine = [message.value for message in sent[partition::2]]
            assert [text for text in texts if text in mine] == mine
        await theirs.has(1)
        assert theirs.ids() == ["foreign"]
        assert all(event.id for event in [*stream.events, *theirs.events])


REASONS = ("inorganic", "inorganic_grouped", "metadata_filter")


CHOICES: dict[str, set[str]] = {
    "?reasons=none": {"None", "bought"},
    "?reasons=any": {*REASONS},
    "?reasons=inorganic,%20none": {"None", "bought", "inorganic"},
    "?reasons=": {"None", "bought", *REASONS},
    "?event_type=form_submit": set(),
    "?event_type=page-view,x&reasons=metadata_filter": {"metadata_filter"},
    "?event_type=Bought,%20Twice": {"bought"},
}


async def test_reasons_and_types_choose_among_enriched_events_alone(api: Api) -> None:
    """Merges come all the same."""
    reasons = (None, *REASONS)
    events = [enriched(f"{reason}", suppression_reason=reason, partition=0) for reason in reasons]
    bought = enriched("bought", event_type="Bought, Twice", partition=0)
    async with AsyncExitStack() as leaving:
        streams = {
            query: await leaving.enter_async_context(listening(api.client, query))
            for query in CHOICES
        }
        await publish(api.world, [*events, bought, merged("merge", partition=0)])
        await until(lambda: all("lead_merged" in each.names() for each in streams.values()))
    assert {query: {*each.ids()} - {"merge"} for query, each in streams.items()} == CHOICES


async def test_a_bad_choice_is_refused_by_the_name_of_the_parameter(api: Api) -> None:
    """As everywhere."""
    for query in ("reasons=organic", "reasons=none,", "event_type=%20-_"):
        answer = await api.client.get(f"/stream?{query}")
        assert answer.status_code == 400
        named = query.partition("=")[0]
        assert answer.json()["error"]["message"].startswith(f"{named}: ")


async def test_a_merge_is_an_event_of_its_own_beside_the_enriched_one(api: Api) -> None:
    """With what a reader needs of it."""
    async with listening(api.client) as stream:
        await publish(api.world, [merged("mrg-1")])
        first, second = await stream.has(2)
    assert (first.name, second.name) == ("new_event", "lead_merged")
    assert first.id != second.id
    assert second.data == {
        "id": "mrg-1",
        "lead_id": "L",
        "source_lead_ids": ["B", "C"],
        "events_moved": 12,
        "requested_by": "ann",
        "created_at": "2025-01-15T10:30:00.000Z",
    }


async def test_what_the_engagement_service_finds_is_passed_on_as_it_is(api: Api) -> None:
    """Of the org unit its value names; what is none of its messages is passed over."""
    topic = f"{api.world.id}.engagement"
    said = [
        {
            "type": kind,
            "org_unit": org_unit,
            "lead_id": "L",
            "score": 3,
            "at": "2025-01-15T10:30:00Z",
        }
        for kind in ("lead_created", "score_update", "surge", "other")
        for org_unit in ("acme", "rival")
    ]
    async with listening(api.client, "?reasons=any&event_type=x") as stream:
        values = [json.dumps(one, indent=1).encode() for one in said]
        await produce(api.world.kafka, topic, [Message(v, partition=0) for v in (b"{", *values)])
        await until(lambda: len(stream.events) == 3)
    assert stream.names() == ["lead_created", "score_update", "surge"]
    assert [event.data for event in stream.events] == said[0:6:2]


async def test_a_record_that_is_no_enriched_event_is_passed_over(api: Api) -> None:
    """And stops nothing."""
    async with listening(api.client) as stream:
        ours = (("org-unit", b"acme"),)
        bad = [
            Message(value, b"L", headers=ours, partition=0)
            for value in (b"{", None, b"[]", b"\xff")
        ]
        await publish(api.world, [*bad, Message(b"{}", partition=0), enriched("good", partition=0)])
        await stream.has(1)
        assert stream.ids() == ["good"]


async def test_only_a_token_that_may_read_events_is_served(api: Api) -> None:
    """401 without one, 403 without the scope."""
    assert (await api.bearing(None).get("/stream")).status_code == 401
    writer = await api.as_org_unit("acme", scopes=["ingest"])
    assert (await writer.get("/stream?reasons=bad")).status_code == 403
    assert (await api.client.post("/stream")).status_code == 405
