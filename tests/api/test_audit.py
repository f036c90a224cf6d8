"""Who did what, and when: every kind of deed is in the audit log, in its own org unit alone."""

import asyncio
import getpass
from pathlib import Path
from typing import Any

import httpx
import pytest

from processor.io import filter_file, filters, tokens
from processor.io.clock import now_ms
from processor.pure import timestamps
from tests.api.client import Api, api
from tests.api.merging import apply, command
from tests.api.rows import row, store
from tests.harness import processor

__all__ = ["api"]
pytestmark = pytest.mark.e2e

FILTERS = """
org_units:
  acme:
    velocity_filters:
      - {{id: vf-1, name: Bursts, event_type: page_view, threshold: {threshold}, window_ms: 1000}}
    metadata_filters: []
"""
CLI = f"cli {getpass.getuser()}"


async def log(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    """The entries of the first page, but for the tokens the tests themselves made."""
    answer = await client.get(f"/audit?limit=100&{query}")
    assert answer.status_code == 200, answer.text
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return [one for one in entries if one["actor"] != "test"]


async def run(api: Api, *arguments: str) -> str:
    """What a command prints."""
    return await asyncio.to_thread(processor, api.world.environment(), *arguments)


def what(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Who did what to what."""
    return entry["actor"], entry["action"], entry["subject"]


async def test_a_delete_is_audited_with_the_ids_it_deleted(api: Api) -> None:
    """By the token's name; a delete that found nothing is no deed."""
    await store(api.database, [row(1), row(2)])
    ids = ["evt-000001", "evt-000002", "nobody"]
    await api.client.request("DELETE", "/events/batch", json={"event_ids": ids})
    await api.client.request("DELETE", "/events/batch", json={"event_ids": ids})
    (entry,) = await log(api.client)
    assert list(entry) == ["id", "at", "actor", "action", "subject", "details"]
    assert what(entry) == ("ann", "event.delete", "2 events")
    assert entry["details"] == {"event_ids": ids[:2]}
    at = timestamps.from_text(entry["at"])
    assert at is not None
    assert abs(now_ms() - at) < 60_000


async def test_changes_of_filters_are_audited(api: Api, tmp_path: Path) -> None:
    """Created (by command), changed, left alone, deleted and created again, each with its version."""
    file = tmp_path / "filters.yaml"
    file.write_text(FILTERS.format(threshold=2))
    await run(api, "filters", "apply", str(file))
    for text in (
        FILTERS.format(threshold=3),
        FILTERS.format(threshold=3),
        "org_units: {acme: {}}",
        FILTERS.format(threshold=4),
    ):
        file.write_text(text)
        await filters.apply(api.owner, filter_file.read(file), "eve")
    entries = (await log(api.client))[::-1]
    assert [what(entry) for entry in entries] == [
        (CLI, "filter.create", "vf-1"),
        ("eve", "filter.change", "vf-1"),
        ("eve", "filter.delete", "vf-1"),
        ("eve", "filter.create", "vf-1"),
    ]
    assert [entry["details"]["version"] for entry in entries] == [1, 2, 2, 3]
    assert entries[1]["details"]["definition"]["threshold"] == 3
    assert entries[2]["details"]["definition"] is None


async def test_merges_are_audited_when_they_happen_and_only_if_they_change_something(
    api: Api,
) -> None:
    """With the sources they merged, and their id."""
    await apply(api, command("A", ["B", "A"]))
    await apply(api, command("A", ["B"]))
    taken_back = command("A", ["B"], "unmerge")
    await apply(api, taken_back)
    unmerged, merged = await log(api.client)
    assert what(merged) == ("upstream", "lead.merge", "A")
    assert what(unmerged) == ("upstream", "lead.unmerge", "A")
    assert unmerged["details"] == {
        "merge_id": taken_back.message_id,
        "source_lead_ids": ["B"],
        "survivor_lead_id": "A",
    }


async def test_tokens_are_audited_without_their_secret(api: Api) -> None:
    """Created and revoked by command; revoked again is no deed."""
    printed = await run(
        api, "tokens", "create", "--org-unit", "acme", "--name", "bob", "--expires", "1d"
    )
    token = printed.split()[-1]
    _, prefix, secret = token.split("_", 2)
    await run(api, "tokens", "revoke", token)
    assert await tokens.revoke(api.owner, prefix, "eve")
    revoked, created = await log(api.client)
    assert what(created) == (CLI, "token.create", prefix)
    assert what(revoked) == (CLI, "token.revoke", prefix)
    assert created["details"]["name"] == "bob"
    assert "events:read" in created["details"]["scopes"]
    everything = await api.database.fetchval("SELECT string_agg(a::text, '') FROM audit_log a")
    assert secret not in everything
    assert prefix in everything
    dumped = await api.database.fetchval("SELECT string_agg(t::text, '') FROM tokens t")
    assert secret not in dumped


async def test_an_org_unit_sees_its_own_deeds_alone(api: Api) -> None:
    """And a token without the scope sees none."""
    await apply(api, command("A", ["B"], org_unit="other"))
    assert await log(api.client) == []
    other = await api.as_org_unit("other")
    assert [entry["action"] for entry in await log(other)] == ["lead.merge"]
    blind = await api.as_org_unit("acme", scopes=["events:read"])
    assert (await blind.get("/audit")).status_code == 403


async def test_pages_and_choices(api: Api) -> None:
    """Newest first, with the number of all that are chosen; a bad value is named."""
    await api.database.execute("DELETE FROM audit_log")
    await api.database.execute(
        """INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
        SELECT 'acme', ms_event($1::bigint - n * 3600000), 'a' || n % 2, 'event.delete', n::text, '{}'
        FROM generate_series(0, 49) n""",
        1_736_937_000_000,  # 10:30
    )
    api.now.at = 1_736_937_000_001

    async def page(query: str) -> tuple[list[str], int]:
        answer = (await api.client.get(f"/audit?{query}")).json()
        return [entry["subject"] for entry in answer["entries"]], answer["total"]

    assert await page("") == ([str(n) for n in range(25)], 50)
    assert await page("page=2&limit=3") == (["3", "4", "5"], 50)
    assert await page("page=99&limit=100") == ([], 50)
    assert (await page("limit=1&actor=a1"))[1] == 25
    assert await page("limit=1&actor=a1&range=today") == (["1"], 5)
    assert await page("limit=1&range=yesterday") == (["11"], 24)
    assert (await page("limit=1&range=last_7d"))[1] == 50
    assert await page("action=event.delete&limit=1") == (["0"], 50)
    assert await page("action=lead.merge") == ([], 0)
    assert await page("actor=x%00") == ([], 0)
    assert await page("actor=&action=&range=&page=&limit=1") == (["0"], 50)
    for bad in ("page=0", "limit=101", "limit=x", "action=event", "range=always"):
        answer = await api.client.get(f"/audit?{bad}")
        assert answer.status_code == 400
        assert bad.partition("=")[0] in answer.json()["error"]["message"]


async def test_deeds_are_listed_by_time_whatever_order_they_were_written_in(api: Api) -> None:
    """A change that waited for its lock has the time it began."""
    await api.database.execute(
        """INSERT INTO audit_log (org_unit, at, actor, action, subject, details)
        SELECT 'acme', ms_event(n), 'late', 'event.delete', n::text, '{}' FROM unnest(ARRAY[3, 1, 2]) n"""
    )
    assert [entry["subject"] for entry in await log(api.client, "actor=late")] == ["3", "2", "1"]
