"""``GET /leads`` and ``GET /leads/{lead_id}``: what the engagement service has counted, as users see it."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from processor.pure.enriched import Organic, Relinked
from tests.api.client import ORG, Api, api
from tests.api.counting import count
from tests.api.merging import apply, command
from tests.api.sse import listening
from tests.harness import Message, produce, until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

AT = 1_736_937_000_000
"""2025-01-15T10:30:00Z."""
WEEK = 7 * 86_400_000
MINUTE = 60_000


def event(name: str, lead: str, at: int, kind: str = "Page View", org_unit: str = ORG) -> Organic:
    """An organic event."""
    return Organic(org_unit, name, lead, kind, at)


async def get(api: Api, path: str) -> dict[str, Any]:
    """The body of a success."""
    answer = await api.client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_lead_has_its_score_sessions_and_first_and_last_organic_event(api: Api) -> None:
    """The score as of now; sessions end with half an hour without events."""
    events = [event(f"e{n}", "ld_1", AT + n * 20 * MINUTE) for n in range(3)]
    await count(api, *events, event("form", "ld_1", AT + 100 * MINUTE, "Form Submit"))
    api.now.at = AT + 2 * WEEK
    assert await get(api, "/leads/ld_1") == {
        "lead_id": "ld_1",
        "score": 3.268283,
        "sessions": 2,
        "first_organic_event": "2025-01-15T10:30:00Z",
        "last_organic_event": "2025-01-15T12:10:00Z",
        "recent_sessions": [
            {"started_at": "2025-01-15T12:10:00Z", "ended_at": "2025-01-15T12:10:00Z", "events": 1},
            {"started_at": "2025-01-15T10:30:00Z", "ended_at": "2025-01-15T11:10:00Z", "events": 3},
        ],
    }
    api.now.at = AT + 3 * WEEK
    assert (await get(api, "/leads/ld_1"))["score"] == pytest.approx(3.268283 / 2, abs=1e-6)


async def test_leads_are_listed_by_score_and_then_by_id(api: Api) -> None:
    """An old event is worth less than a new one; what weighs nothing comes last; pages follow each other."""
    await count(
        api,
        event("1", "old", AT - 8 * WEEK, "Form Submit"),
        event("2", "b", AT),
        event("3", "a", AT),
        event("4", "calls", AT, "Call"),
        event("5", "best", AT, "Form Submit"),
        event("6", "theirs", AT, org_unit="other"),
    )
    api.now.at = AT
    body = await get(api, "/leads")
    assert list(body) == ["leads", "total", "page", "limit"]
    assert (body["total"], body["page"], body["limit"]) == (5, 1, 25)
    scores = {lead["lead_id"]: lead["score"] for lead in body["leads"]}
    assert list(scores.items()) == [
        ("best", 10), ("a", 1), ("b", 1), ("old", 0.039062), ("calls", 0),
    ]  # fmt: skip
    assert list(body["leads"][0]) == [
        "lead_id", "score", "sessions", "first_organic_event", "last_organic_event",
    ]  # fmt: skip
    pages = [await get(api, f"/leads?page={n}&limit=2") for n in (1, 2, 3, 4)]
    assert [[lead["lead_id"] for lead in page["leads"]] for page in pages] == [
        ["best", "a"], ["b", "old"], ["calls"], [],
    ]  # fmt: skip
    assert {page["total"] for page in pages} == {5}
    for query in ("page=0", "limit=101", "limit=x", "page=1.0"):
        answer = await api.client.get(f"/leads?{query}")
        assert answer.status_code == 400
        assert query.partition("=")[0] in answer.json()["error"]["message"]


async def test_a_merged_away_lead_means_its_survivor(api: Api) -> None:
    """At once, before the service has seen the merge; the list follows with it."""
    await count(api, event("1", "a", AT), event("2", "b", AT + MINUTE), event("3", "b", AT + WEEK))
    merge = command("c", ["a", "b"])
    await apply(api, merge)
    one = await get(api, "/leads/b")
    assert (one["lead_id"], one["sessions"]) == ("c", 2)
    assert one == await get(api, "/leads/c")
    await count(api, Relinked(ORG, merge.message_id, ["c", "a", "b"], AT))
    body = await get(api, "/leads")
    del one["recent_sessions"]
    assert (body["leads"], body["total"]) == ([one], 1)


async def test_an_unmerged_lead_is_listed_as_it_was_until_the_service_has_read_of_it(
    api: Api,
) -> None:
    """Though its survivor has not one organic event of its own."""
    await count(api, event("1", "a", AT))
    merge, unmerge = command("c", ["a"]), command("c", ["a"], kind="unmerge")
    await apply(api, merge)
    await count(api, Relinked(ORG, merge.message_id, ["c", "a"], AT))
    before = await get(api, "/leads")
    assert [lead["lead_id"] for lead in before["leads"]] == ["c"]
    await apply(api, unmerge)
    assert await get(api, "/leads") == before
    assert (await api.client.get("/leads/c")).status_code == 404
    await count(api, Relinked(ORG, unmerge.message_id, ["c", "a"], AT))
    assert [lead["lead_id"] for lead in (await get(api, "/leads"))["leads"]] == ["a"]


async def test_any_characters_make_a_lead(api: Api) -> None:
    """Slashes and names of other addresses among them."""
    names = ["a/b c?", "é\n", "merge", "preview", "x" * 128]
    await count(api, *(event(name, name, AT) for name in names))
    for name in names:
        assert (await get(api, f"/leads/{quote(name, safe='')}"))["lead_id"] == name


async def test_a_lead_without_organic_events_is_a_404(api: Api) -> None:
    """As is one of another org unit, and what can be no lead."""
    await count(api, event("1", "theirs", AT, org_unit="other"))
    for name in ("nobody", "theirs", "%00", "x" * 129):
        answer = await api.client.get(f"/leads/{name}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert await get(api, "/leads") == {"leads": [], "total": 0, "page": 1, "limit": 25}


async def test_leads_are_read_with_the_scope_of_events(api: Api) -> None:
    """401 without a token, 403 without the scope."""
    writer = await api.as_org_unit(ORG, scopes=["ingest"])
    for path in ("/leads", "/leads/x"):
        assert (await api.bearing(None).get(path)).status_code == 401
        assert (await writer.get(path)).status_code == 403


@pytest.mark.timeout(120)
async def test_what_the_service_finds_is_streamed(api: Api, start_worker: Any) -> None:
    """From the enriched topic to the client, in order; a suppressed event tells nothing."""
    environment = {**api.world.environment(), "SURGE_THRESHOLD": "2", "SURGE_WINDOW": "1m"}
    service = start_worker(environment, "engagement")
    await service.ready(40)
    given: dict[str, Any] = {
        "org_unit": ORG,
        "lead_id": "L",
        "original_lead_id": None,
        "event_type": "Form Submit",
        "metadata": {},
        "created_at": "2025-01-15T10:30:00.000Z",
        "received_at": "2025-01-15T10:30:00.000Z",
        "suppressed_by": None,
    }
    events = [
        {**given, "id": "1", "suppression_reason": None},
        {**given, "id": "2", "suppression_reason": "inorganic"},
        {**given, "id": "3", "suppression_reason": None},
    ]
    async with listening(api.client, "?reasons=any&event_type=x") as stream:
        values = [json.dumps(one).encode() for one in events]
        messages = [Message(value, b"L", partition=0) for value in values]
        await produce(api.world.kafka, api.world.enriched, messages[:2])
        await until(lambda: len(stream.events) == 2, 30)
        await produce(api.world.kafka, api.world.enriched, messages[2:])
        await until(lambda: len(stream.events) == 4, 30)
    assert stream.names() == ["lead_created", "score_update", "score_update", "surge"]
    said = {"org_unit": ORG, "lead_id": "L", "at": "2025-01-15T10:30:00.000Z"}
    scores = [("lead_created", 10), ("score_update", 10), ("score_update", 20), ("surge", 20)]
    assert [dict(event.data) for event in stream.events] == [
        {**said, "type": kind, "score": score} for kind, score in scores
    ]
    assert await service.stop() == 0
