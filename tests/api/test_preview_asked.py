"""Previews: what may be asked, who sees what, and how many run at once."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from tests.api.client import Api, api
from tests.api.previewing import METADATA, VELOCITY, ask, told
from tests.api.rows import row, store
from tests.harness_waiting import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

MISTAKES: Sequence[tuple[Any, str]] = (
    ([], "The body must be a JSON object"),
    ({}, "filter: "),
    ({"filter": 5}, "filter: "),
    ({"filter": {}}, "conditions: is required"),
    ({"filter": {**METADATA, "nmae": "x"}}, "nmae: there is no such field"),
    (
        {"filter": {"conditions": [{"key": "k", "operator": "matches", "value": "("}]}},
        "conditions 1",
    ),
    ({"filter": METADATA, "range": "last_year"}, "range: "),
    ({"filter": METADATA, "ragne": "today"}, "ragne: "),
    ({"filter": METADATA, "from": "yesterday"}, "from: "),
    ({"filter": METADATA, "from": 5}, "from: "),
    ({"filter": METADATA, "to": "2024-01-01T00:00:00Z"}, "from: is required with to"),
    ({"filter": METADATA, "from": "2024-01-01T00:00:00Z", "to": "2024-01-01T00:00:00Z"}, "to: "),
    ({"filter": METADATA, "from": "2024-01-01T00:00:00Z", "to": "2024-01-01"}, "to: "),
    ({"filter": METADATA, "from": "2024-01-01T00:00:00Z", "range": "today"}, "range: "),
)


async def test_a_mistake_is_named_and_nothing_is_kept(api: Api) -> None:
    """As in a filter that is saved."""
    for body, complaint in MISTAKES:
        answer = await api.client.post("/metadata-filters/preview", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(complaint), answer.text
    await told(api, "metadata", METADATA)
    assert (await api.client.get("/metadata-filters")).json() == []


OPERATORS: Sequence[tuple[str, Any, int]] = (
    ("equals", 5, 1),
    ("not_equals", 5, 3),
    ("contains", "BOT", 1),
    ("not_contains", "bot", 3),
    ("starts_with", "google", 1),
    ("ends_with", "bot", 1),
    ("exists", None, 3),
    ("not_exists", None, 1),
    ("in", [5, "10.1.2.3"], 2),
    ("gt", 4, 1),
    ("lt", "6", 1),
    ("matches", "^g.*t$", 1),
    ("in_cidr", ["10.0.0.0/8"], 1),
)


async def test_every_operator_and_limit_is_previewed(api: Api) -> None:
    """A filter as wide and as high as may be; every condition there is."""
    found = [{"k": "GoogleBot"}, {"k": 5}, {"k": "10.1.2.3"}, {}]
    await store(api.database, [row(n, metadata=one) for n, one in enumerate(found)])
    for operator, value, events in OPERATORS:
        condition = {"key": "k", "operator": operator} | ({} if value is None else {"value": value})
        told_of = await told(api, "metadata", {"conditions": [condition]})
        assert told_of["suppressed"] == events, operator
    widest = {"event_type": "page_view", "window_ms": 2_592_000_000}
    for threshold, keep_first, events in ((0, False, 4), (0, True, 3), (10_000, True, 0)):
        own = {**widest, "threshold": threshold, "keep_first": keep_first}
        assert (await told(api, "velocity", own))["suppressed"] == events


async def test_a_preview_keeps_little_of_large_metadata_in_memory(api: Api) -> None:
    """Of 100 KB that come in, jsonb writes 4.5 MB; rows large and small are all judged, whatever their order."""
    large = {"k": [1e308] * 14_000, "ua": "bot"}
    await store(
        api.database,
        [row(n, metadata=large if n % 25 else {"ua": "bot"}, lead_id=f"L{n}") for n in range(50)],
    )
    await told(api, "metadata", METADATA)  # what is loaded and prepared only once
    tracemalloc.start()
    try:
        found = await told(api, "metadata", METADATA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found["events"], found["suppressed"], found["leads"]) == (50, 50, 50)
    assert peak < 160 << 20, peak


async def test_a_preview_sees_its_org_unit_alone(api: Api) -> None:
    """Events, redirects and filters of others are not there."""
    await store(api.database, [row(n, org_unit="other", metadata={"ua": "bot"}) for n in range(5)])
    assert (await told(api, "metadata", METADATA))["events"] == 0
    assert (await told(api, "velocity", {**VELOCITY, "threshold": 0}))["events"] == 0
    reader = await api.as_org_unit("other", scopes=["filters:read"])
    body = {"filter": METADATA, "from": "0001-01-01T00:00:00Z"}
    answer = await reader.post("/metadata-filters/preview", json=body)
    assert answer.json()["suppressed"] == 5
    writer = await api.as_org_unit("other", scopes=["filters:write"])
    assert (await writer.post("/metadata-filters/preview", content=b"{")).status_code == 403
    assert (await api.bearing(None).post("/metadata-filters/preview")).status_code == 401


async def test_one_preview_runs_some_wait_and_the_others_are_told_to_come_again(api: Api) -> None:
    """The first one goes on when the table is free again."""
    await store(api.database, [row(1, metadata={"ua": "bot"})])
    turns = api.services.previews
    async with (
        asyncio.TaskGroup() as group,
        api.database.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("LOCK TABLE lead_redirects IN ACCESS EXCLUSIVE MODE")
        previews = [group.create_task(ask(api, "metadata", METADATA)) for _ in range(8)]
        await until(lambda: sum(one.done() for one in previews) == 2)
        assert turns._lock.locked()
        assert (await api.client.get("/metadata-filters")).status_code == 200
    answers = [one.result() for one in previews]
    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [503] * 2
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] for answer in refused)
    assert not turns._lock.locked()


async def test_a_preview_ends_with_its_client_and_with_the_process(api: Api) -> None:
    """The next one has its turn."""
    await store(api.database, [row(n, metadata={"ua": "bot"}) for n in range(20)])
    async with api.database.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE lead_redirects IN ACCESS EXCLUSIVE MODE")
        gone = api.bearing(await api.token())
        body = {"filter": METADATA}
        asking = asyncio.create_task(gone.post("/metadata-filters/preview", json=body))
        await until(api.services.previews._lock.locked)
        asking.cancel()
        await until(asking.done)
    await until(lambda: not api.services.previews._lock.locked())
    assert (await told(api, "metadata", METADATA))["suppressed"] == 20
    api.services.stopping.set()
    assert (await ask(api, "metadata", METADATA)).status_code == 503
