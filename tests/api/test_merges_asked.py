"""What may be asked of merges, what a merge would do, and how far one is: without a worker."""

import json
import random
from typing import Any

import pytest

from processor.io import merge_view
from processor.io.postgres import QUERIES
from tests.api.client import Api, api
from tests.api.merging import apply, command, leads, move, progress
from tests.api.rows import row, store
from tests.harness import read_topic

__all__ = ["api"]
pytestmark = pytest.mark.e2e

PATHS = ("/leads/merge", "/leads/unmerge", "/leads/merge/preview")
BAD = [
    ([], "JSON object"),
    ({}, "targetLeadId"),
    ({"targetLeadId": "A"}, "sourceLeadIds"),
    ({"target_lead_id": "A", "source_lead_ids": ["B"]}, "targetLeadId"),
    (leads(""), "targetLeadId"),
    (leads("x" * 129, "B"), "targetLeadId"),
    (leads("A\0", "B"), "targetLeadId"),
    (leads("\ud800", "B"), "targetLeadId"),
    ({"targetLeadId": 1, "sourceLeadIds": ["B"]}, "targetLeadId"),
    (leads("A"), "sourceLeadIds"),
    ({"targetLeadId": "A", "sourceLeadIds": "B"}, "sourceLeadIds"),
    ({"targetLeadId": "A", "sourceLeadIds": ["B", 2]}, "sourceLeadIds[1]"),
    (leads("A", "B", ""), "sourceLeadIds[1]"),
    (leads("A", *map(str, range(501))), "sourceLeadIds"),
]


@pytest.fixture
async def people(api: Api) -> Api:
    """Leads A to D with 1 to 4 events, one of B deleted, and two of another org unit's B."""
    events = [(lead, n) for m, lead in enumerate("ABCD", 1) for n in range(m)]
    stored = [row(n, id=f"{lead}{i}", lead_id=lead) for n, (lead, i) in enumerate(events)]
    stored[1]["deleted"] = True
    stored += [row(90 + n, id=f"o{n}", org_unit="other", lead_id="B") for n in range(2)]
    await store(api.database, stored)
    await api.database.execute("SELECT setval('batches', 100)")  # they were recorded before
    return api


async def test_what_breaks_a_rule_is_refused_by_name_and_reaches_no_topic(api: Api) -> None:
    """By the rules of the merge topic itself."""
    for path in PATHS:
        for body, named in BAD:
            answer = await api.client.post(path, content=json.dumps(body))
            assert answer.status_code == 400, (path, body)
            assert named in answer.json()["error"]["message"], (path, body)
    assert await read_topic(api.world.kafka, api.world.merges) == []


async def test_the_largest_merge_fits(api: Api) -> None:
    """500 sources of 128 characters, each as long as UTF-8 can make it."""
    sources = [f"{n:03}" + "\U0001f600" * 125 for n in range(500)]
    answer = await api.client.post("/leads/merge", json=leads("A", *sources))
    assert answer.status_code == 202, answer.text
    (record,) = await read_topic(api.world.kafka, api.world.merges)
    assert record.key == b"acme"
    assert (await progress(api, answer.json()["mergeId"]))["sourceLeadIds"] == sources


async def test_scope_comes_before_body_and_token_before_scope(api: Api) -> None:
    """For every address of merges."""
    reader = await api.as_org_unit("acme", scopes=["events:read"])
    for path in PATHS:
        assert (await reader.post(path, json=[])).status_code == 403
        assert (await api.bearing(None).post(path, json=[])).status_code == 401
    assert (await reader.get("/leads/merges/" + "0" * 32)).status_code == 403


async def test_what_was_not_merged_cannot_be_unmerged(people: Api) -> None:
    """Strangers, the other way round, itself, another org unit's; the message names them, at most ten."""
    await apply(people, command("B", ["A"]))
    await apply(people, command("C", ["D"], org_unit="other"))
    for target, source in (("A", "B"), ("B", "B"), ("B", "nobody"), ("C", "D"), ("A", "A")):
        answer = await people.client.post("/leads/unmerge", json=leads(target, source))
        assert answer.status_code == 409, (target, source)
        assert answer.json()["error"]["message"] == f"Not merged into {target}: {source}"
    some = [f"x{n}" for n in range(12)]
    answer = await people.client.post("/leads/unmerge", json=leads("B", "A", *some))
    assert answer.json()["error"]["message"].endswith("x9 and 2 more")
    assert (await people.client.post("/leads/unmerge", json=leads("B", "A"))).status_code == 202


async def test_a_merge_moves_until_its_last_row_has_been_looked_at(people: Api) -> None:
    """Readers see the merged view meanwhile."""
    asked = command("A", ["D"])
    await apply(people, asked)
    found = await progress(people, asked.message_id)
    assert (found["status"], found["eventsMoved"], found["eventsLeft"]) == ("moving", 4, 4)
    assert (await people.client.get("/events/A")).json()["total"] == 6  # and the merge's own
    await move(people)
    found = await progress(people, asked.message_id)
    assert (found["status"], found["eventsMoved"], found["eventsLeft"]) == ("done", 4, 0)


async def test_a_merge_whose_rows_are_not_counted_yet_is_moving(people: Api) -> None:
    """As after a crash right behind the commit of a large one."""
    asked = command("A", ["B"])
    await apply(people, asked)
    await move(people)
    await people.database.execute("UPDATE merges SET counting = ARRAY['B'], events_moved = 0")
    found = await progress(people, asked.message_id)
    assert (found["status"], found["eventsMoved"]) == ("moving", None)


async def test_a_preview_names_survivor_roots_and_numbers_and_does_nothing(people: Api) -> None:
    """A deleted event moves as well; two sources that are one lead already count once."""
    await apply(people, command("C", ["D"]))
    for _ in range(2):
        answer = await people.client.post(
            "/leads/merge/preview", json=leads("A", "C", "B", "D", "A", "nobody")
        )
        assert answer.status_code == 200
        assert answer.json() == {
            "survivorLeadId": "A",
            "sources": [
                {"leadId": "C", "rootLeadId": "C", "events": 8, "noOp": False},  # and a Lead Merged
                {"leadId": "B", "rootLeadId": "B", "events": 2, "noOp": False},
                {"leadId": "D", "rootLeadId": "C", "events": 8, "noOp": False},
                {"leadId": "A", "rootLeadId": "A", "events": 0, "noOp": True},
                {"leadId": "nobody", "rootLeadId": "nobody", "events": 0, "noOp": False},
            ],
            "eventsToMove": 10,
            "exact": True,
        }
        await move(people)
    assert await people.database.fetchval("SELECT count(*) FROM merges") == 1


async def test_a_preview_says_what_the_merge_then_does(people: Api) -> None:
    """For random merges and unmerges, with moves pending or not."""
    rng = random.Random(4)
    names = [*"ABCDE"]
    for _ in range(40):
        target, *sources = rng.sample(names, rng.randint(2, 4))
        if rng.random() < 0.3:
            await apply(people, command(target, sources, "unmerge"))
            continue
        told = (
            await people.client.post("/leads/merge/preview", json=leads(target, *sources))
        ).json()
        merged = await apply(people, command(target, sources))
        assert told["eventsToMove"] == merged.events_moved
        assert told["survivorLeadId"] == merged.survivor
        assert [one["leadId"] for one in told["sources"] if not one["noOp"]] == [*merged.named]
        if rng.random() < 0.3:
            await move(people)


async def test_a_preview_of_very_many_events_says_that_it_stopped(people: Api) -> None:
    """It costs no more than it counts."""
    found = await merge_view.standing(people.services.postgres, "acme", "A", ["C", "D"], most=5)
    assert (found.exact, sum(found.events.values())) == (False, 6)
    found = await merge_view.standing(people.services.postgres, "acme", "A", ["C", "D"], most=7)
    assert (found.exact, sum(found.events.values())) == (True, 7)


async def plans(people: Api, name: str, *args: Any) -> str:
    """How the API's role finds what a statement asks for."""
    async with people.services.postgres.of_org_unit("acme") as connection:
        await connection.execute(QUERIES["by_index"])
        rows = await connection.fetch(f"EXPLAIN {QUERIES[name]}", *args)
    return "\n".join(row[0] for row in rows)


async def test_counts_of_merges_go_by_index(people: Api) -> None:
    """A preview while nothing is pending, by an index alone; row-level security is no obstacle."""
    preview = await plans(people, "merge_preview", "acme", "A", ["B"], 1_000_001)
    assert "Index Only Scan using events_by_lead" in preview
    assert "Seq Scan on events" not in preview
    shown = await plans(people, "merge_progress", "acme", "0" * 32, 1_000_001)
    assert "Seq Scan on events" not in shown
