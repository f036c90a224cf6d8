"""Hostile texts in every parameter and every place of every body: an answer of the contract, and they mean themselves."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from processor.io import filter_file, filters
from processor.io.clock import now_ms
from processor.io.filters import Changes
from processor.pure.enriched import Organic
from schemas import normalise_event_type
from tests.api.client import Api, api
from tests.api.counting import count
from tests.api.merging import apply, command
from tests.api.rows import row, store
from tests.oracle_conditions import satisfies
from tests.security.attacks import (
    TEXTS,
    UNSTORABLE,
    VALUES,
    described,
    encoded,
    everything_of,
    filled,
    leaves,
    refused_or_answered,
    with_at,
)

__all__ = ["api"]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

THEM, SECRET = "other", "hidden"
ENDLESS = "/stream"
AT_ONCE = 5
"""Of previews one has its turn, and as many may wait."""
CHOICES = {"page", "limit", "range", "suppression_reason", "action"}
"""Parameters that take no text: some are enough."""
KNOWN = {"lead_id": "lead", "merge_id": "0" * 32, "filter_id": "known"}
SCHEMA = """
SELECT c.relname, c.relkind, (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
TEXT_OPERATORS = ("equals", "not_equals", "contains", "not_contains", "starts_with", "ends_with")


def requests_of(
    method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Hostile requests of an operation: in each parameter each text, in each place of the body some of the texts and values in turn."""
    body = _body_of(operation)
    for parameter in operation.get("parameters", ()):
        chosen = TEXTS[::4] if parameter["name"] in CHOICES else TEXTS
        for text in (*chosen, *UNSTORABLE):
            place, name = parameter["in"], parameter["name"]
            ids = {**KNOWN, name: text} if place == "path" else KNOWN
            query = f"?{name}={encoded(text)}" if place == "query" else ""
            sent: dict[str, Any] = {"json": body} if body is not None else {}
            if place == "header" and not {*text} & {*"\r\n\0"}:  # no client sends these
                sent["headers"] = [(name.encode(), text.encode(errors="surrogatepass"))]
            yield method, filled(path, ids) + query, sent
    for number, way in enumerate(leaves(body) if body is not None else ()):
        for value in (*TEXTS[number % 6 :: 6], *VALUES[number % 2 :: 2]):
            content = json.dumps(with_at(body, way, value)).encode()
            yield method, filled(path, KNOWN), {"content": content}


def _body_of(operation: Mapping[str, Any]) -> Any:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    if "example" in content:
        return content["example"]
    return [*content["examples"].values()][-1]["value"]


async def seeded(api: Api) -> None:
    """Events, a merge and a score, of this org unit and of another one."""
    now = now_ms() // 1000 * 1000
    for org_unit in ("acme", THEM):
        kept = {"org_unit": org_unit, "lead_id": "lead", "metadata": {"k": SECRET}}
        rows = [row(n, occurred_at=now - n, **kept) for n in range(3)]
        await store(api.database, rows)
        await count(api, Organic(org_unit, "e", "lead", "Page View", now))
        await apply(api, command("lead", ["source"], org_unit=org_unit))


async def test_no_text_in_any_place_is_a_defect_or_reaches_another_org_unit(api: Api) -> None:
    """Every parameter and every place of every body; tables and what others have in them are as before."""
    await seeded(api)
    before = await everything_of(api.database, THEM), await api.database.fetch(SCHEMA)
    asked, turns = 0, asyncio.Semaphore(AT_ONCE)

    async def ask(method: str, path: str, sent: dict[str, Any]) -> None:
        async with turns:
            answer = await api.client.request(method, path, **sent)
        refused_or_answered(answer)
        assert THEM not in answer.text

    for path, item in (await described(api)).items():
        for method, operation in item.items():
            if path == ENDLESS:
                continue
            async with asyncio.TaskGroup() as tasks:
                for request in requests_of(method, path, operation):
                    asked += 1
                    tasks.create_task(ask(*request))
    assert asked > 2_500
    assert (await everything_of(api.database, THEM), await api.database.fetch(SCHEMA)) == before


async def test_no_text_in_the_parameters_of_the_stream_is_a_defect(api: Api) -> None:
    """Its answer has no end where it is given one."""
    for name in ("reasons", "event_type", "last_event_id"):
        for text in (*TEXTS, *UNSTORABLE):
            address = f"/stream?{name}={encoded(text)}"
            async with api.client.stream("GET", address) as answer:
                assert answer.status_code in {200, 400}, address


@pytest.fixture
async def odd(api: Api) -> Sequence[dict[str, Any]]:
    """An event for each text, which is its id, its lead, its type and in its metadata; of both org units."""
    rows = [
        row(
            n,
            id=text,
            lead_id=text,
            event_type=normalise_event_type(text) or "Nothing Left",
            metadata={"k": text, text: n},
            occurred_at=now_ms() // 1000 * 1000 - n,
        )
        for n, text in enumerate(TEXTS)
    ]
    await store(api.database, [*rows, *({**one, "org_unit": THEM} for one in rows)])
    return rows


async def test_in_listings_a_text_is_the_lead_or_type_that_has_it(
    api: Api, odd: Sequence[dict[str, Any]]
) -> None:
    """As counted by hand: exactly these, and nothing for what cannot be stored."""
    for one in odd:
        lead, event_type = one["lead_id"], one["event_type"]
        for path in (f"/events?lead_id={encoded(lead)}", f"/events/{encoded(lead)}"):
            assert await _ids(api, path) == {lead}, path
        same = {other["id"] for other in odd if other["event_type"] == event_type}
        assert await _ids(api, f"/events?event_type={encoded(event_type)}") == same
        summary = await api.client.get(f"/suppression/summary?event_type={encoded(event_type)}")
        assert sum(hour["count"] for hour in summary.json()["hours"]) == len(same)
    for text in UNSTORABLE:
        for path in (f"/events?lead_id={encoded(text)}", f"/events?event_type={encoded(text)}"):
            assert await _ids(api, path) == set()
    told = (await api.client.get("/event-types")).json()["event_types"]
    assert {one["event_type"] for one in told} == {one["event_type"] for one in odd}


async def _ids(api: Api, path: str) -> set[str]:
    answer = await api.client.get(path, params={"limit": 100} if "?" not in path else None)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["events"]) == min(found["total"], found["limit"])
    return {event["id"] for event in found["events"]}


async def test_a_delete_takes_the_events_that_have_these_ids_and_no_other(
    api: Api, odd: Sequence[dict[str, Any]]
) -> None:
    """One by one, none of the other org unit's; an id that cannot be one is no event."""
    for number, one in enumerate(odd):
        body = orjson.dumps({"event_ids": [one["id"]]})
        answer = await api.client.request("DELETE", "/events/batch", content=body)
        assert answer.json() == {"deleted": 1}
        left = "SELECT org_unit, count(*) FROM events WHERE deleted_at IS NULL GROUP BY 1"
        counts = dict(map(tuple, await api.database.fetch(left)))
        assert counts.get("acme", 0) == len(odd) - number - 1
        assert counts[THEM] == len(odd)
    body = json.dumps({"event_ids": [*UNSTORABLE, "%", "_", "x" * 200]}).encode()
    answer = await api.client.request("DELETE", "/events/batch", content=body)
    assert answer.json() == {"deleted": 0}


async def test_in_conditions_a_text_is_a_text_and_a_key_is_a_key(
    api: Api, odd: Sequence[dict[str, Any]]
) -> None:
    """Every operator with every text as its value, and every text as its key, suppresses what an oracle says."""
    conditions: list[dict[str, Any]] = [
        {"key": "k", "operator": operator, "value": text}
        for operator in TEXT_OPERATORS
        for text in TEXTS
    ]
    conditions += [{"key": text, "operator": "exists"} for text in TEXTS]
    conditions += [{"key": text, "operator": "gt", "value": 3} for text in TEXTS]
    conditions += [{"key": "k", "operator": "in", "value": [*TEXTS]}]
    turns = asyncio.Semaphore(4)  # some previews may wait, not all

    async def compare(condition: dict[str, Any]) -> None:
        async with turns:
            body = {"filter": {"conditions": [condition]}, "range": "last_7d"}
            answer = await api.client.post("/metadata-filters/preview", json=body)
        assert answer.status_code == 200, answer.text
        wanted = sum(satisfies(condition, one["metadata"]) for one in odd)
        assert answer.json()["suppressed"] == wanted, condition

    async with asyncio.TaskGroup() as tasks:
        for condition in conditions:
            tasks.create_task(compare(condition))


async def test_a_pattern_of_an_odd_text_finds_it_or_is_refused(
    api: Api, odd: Sequence[dict[str, Any]]
) -> None:
    """Quoted as RE2 quotes, it finds what has it; as it is, it is a pattern or a 400."""
    for text in TEXTS:
        condition = {"key": "k", "operator": "matches", "value": f"\\Q{text}\\E"}
        asked = {"filter": {"conditions": [condition]}, "range": "last_7d"}
        answer = await api.client.post("/metadata-filters/preview", json=asked)
        if "\\" not in text:
            contains = {"key": "k", "operator": "contains", "value": text}
            found = sum(satisfies(contains, one["metadata"]) for one in odd)
            assert answer.json()["suppressed"] == found, text
        condition["value"] = text
        assert (await api.client.post("/metadata-filters/preview", json=asked)).status_code in {
            200,
            400,
        }


async def test_names_in_the_audit_log_and_in_filter_files_are_texts(
    api: Api, tmp_path: Path
) -> None:
    """An actor is found by his exact name, and a file that was written is read as the same filters."""
    for text in TEXTS:
        writer = await api.as_org_unit("acme", name=text)
        condition = {"key": text, "operator": "equals", "value": text}
        body = orjson.dumps({"name": text, "event_type": "x", "conditions": [condition]})
        made = await writer.post("/metadata-filters", content=body)
        assert (made.status_code, made.json()["name"], made.json()["changed_by"]) == (
            201,
            text,
            text,
        )
        address = f"/audit?action=filter.create&actor={encoded(text)}"
        found = (await api.client.get(address)).json()
        assert (found["total"], [one["actor"] for one in found["entries"]]) == (1, [text])
    for text in UNSTORABLE:
        assert (await api.client.get(f"/audit?actor={encoded(text)}")).json()["total"] == 0
    file = tmp_path / "filters.yaml"
    file.write_text(filter_file.write(await filters.export(api.owner, None)), "utf-8")
    applied = await filters.apply(api.owner, filter_file.read(file), "test")
    assert applied == Changes(added=0, changed=0, removed=0, unchanged=len(TEXTS))
