"""Filters over HTTP: what is refused, and to whom."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from processor.io.postgres import QUERIES
from tests.api.client import ORG, Api, api
from tests.api.filtering import BODIES, VELOCITY, both, made, refusal

__all__ = ["api"]
pytestmark = pytest.mark.e2e


@both
async def test_what_is_not_there_is_not_found(api: Api, path: str) -> None:
    """A replacement creates nothing."""
    for filter_id in ("absent", "A", "a_b", "a" * 65, "%00", "%F0%9F%98%80", "a%0A"):
        one = f"{path}/{filter_id}"
        for answer in (
            await api.client.get(one),
            await api.client.put(one, json=BODIES[path], headers={"If-Match": "*"}),
            await api.client.patch(one, json={}),
            await api.client.delete(one),
            await api.client.get(f"{one}/versions"),
        ):
            refusal(answer, 404)
    assert (await api.client.get(path)).json() == []


MISTAKES: Sequence[tuple[dict[str, Any], str]] = (
    ({"threshold": 3.5}, "threshold: Input should be a valid integer"),
    ({"threshold": 10_001}, "threshold: Input should be less than or equal to 10000"),
    ({"threshold": -1}, "threshold: Input should be greater than or equal to 0"),
    ({"threshold": True}, "threshold: Input should be a valid integer"),
    ({"window_ms": 0}, "window_ms: "),
    ({"window_ms": 2_592_000_001}, "window_ms: "),
    ({"treshold": 3}, "treshold: there is no such field"),
    ({"name": None}, "name: Input should be a valid string"),
    ({"id": "A"}, "id: "),
    ({"id": None}, "id: "),
    ({"event_type": " _ "}, "event_type: nothing is left of"),
    ({"event_type": "\0"}, "event_type: NUL"),
    ({"event_type": ""}, "event_type: "),
    ({"\ud800": 1}, "the filter: Input should be a valid string"),
)


async def test_a_mistake_in_a_velocity_filter_is_named(api: Api) -> None:
    """In the words of the YAML file; nothing is kept."""
    for more, complaint in MISTAKES:
        body = json.dumps({**VELOCITY, **more}).encode()
        answer = await api.client.post("/velocity-filters", content=body)
        assert refusal(answer, 400).startswith(complaint)
    assert (await api.client.get("/velocity-filters")).json() == []


CONDITION_MISTAKES: Sequence[tuple[Any, str]] = (
    ({"key": "k", "operator": "has", "value": "x"}, ": there is no operator 'has'"),
    ({"key": "k", "operator": "matches", "value": "("}, ", value: RE2 refuses the pattern"),
    ({"key": "k", "operator": "contains"}, ", value: is required"),
    ({"key": "k", "operator": "exists", "value": 1}, ", value: this operator takes no value"),
    ({"key": "k", "operator": "gt", "value": True}, ", value: a number is needed"),
    ({"key": "k", "operator": "in", "value": ["x"] * 1_001}, ", value: the list should have"),
    ({"key": "k", "operator": "in_cidr", "value": "10.0.0.0/80"}, ", value: '10.0.0.0/80'"),
    ({"key": "k", "operator": "in_cidr", "value": [0] * 1_001}, ", value: the list should have"),
    ({"key": "k", "operator": "in_cidr", "value": "fe80::1%\0"}, ", value: NUL"),
    ({"key": "k", "operator": "in_cidr", "value": "fe80::1%\ud800"}, ", value: lone surrogates"),
    (5, ": Input should be"),
)


async def test_a_mistake_in_a_condition_is_named(api: Api) -> None:
    """With its place in the list."""
    good = {"key": "k", "operator": "exists"}
    for condition, complaint in CONDITION_MISTAKES:
        body = json.dumps({"name": "Bots", "conditions": [good, condition]}).encode()
        answer = await api.client.post("/metadata-filters", content=body)
        assert refusal(answer, 400).startswith(f"conditions 2{complaint}")


@both
async def test_a_patch_is_checked_as_what_it_makes(api: Api, path: str) -> None:
    """Null is no value of any field, and an id does not change."""
    await made(api, path, id="one")
    for body, complaint in (
        ({"name": None}, "name: "),
        ({"enabled": None}, "enabled: "),
        ({"id": "two"}, "id: is one in the path"),
        ({"nmae": "x"}, "nmae: there is no such field"),
        ([], "The body must be a JSON object"),
    ):
        answer = await api.client.patch(f"{path}/one", json=body)
        assert refusal(answer, 400).startswith(complaint)
    assert (await api.client.get(f"{path}/one")).json()["version"] == 1


@both
async def test_a_mistake_is_found_before_anybody_waits_for_the_change(api: Api, path: str) -> None:
    """A change that is being made holds every worker up: what is wrong is told while another one is."""
    one = await made(api, path)
    async with api.database.acquire() as connection, connection.transaction():
        await connection.execute(QUERIES["lock_rules"])
        for method in ("PUT", "PATCH"):
            answer = await api.client.request(method, f"{path}/{one['id']}", json={"name": ""})
            assert refusal(answer, 400).startswith("name: ")


async def test_an_org_unit_has_a_thousand_filters_of_a_kind_at_most(api: Api) -> None:
    """Those of the other kind and of others do not count, nor do deleted ones; the last place is given once."""
    await api.database.execute(
        """INSERT INTO filters (org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, enabled, version,
            revision, window_revision, changed_at, changed_by)
        SELECT org, kind || n, kind, 'x', 'X', 1, 1, false, true, 1, 1, 1, now(), 'ann'
        FROM generate_series(1, 999) n, (VALUES ('acme', 'velocity'), ('other', 'velocity')) AS f (org, kind)"""
    )
    async with asyncio.TaskGroup() as group:
        answers = [
            group.create_task(api.client.post("/velocity-filters", json=VELOCITY)) for _ in range(4)
        ]
    assert sorted(answer.result().status_code for answer in answers) == [201, 409, 409, 409]
    await made(api, "/metadata-filters")
    assert (await api.client.delete("/velocity-filters/velocity7")).status_code == 204
    await made(api, "/velocity-filters")
    refused = refusal(await api.client.post("/velocity-filters", json=VELOCITY), 409)
    assert "1000 velocity filters" in refused
    assert len((await api.client.get("/velocity-filters")).json()) == 1_000


async def test_the_conditions_of_an_org_unit_have_16_mb_together_at_most(api: Api) -> None:
    """Those of others do not count, nor do deleted ones, and a change that makes them no more is made."""
    path = "/metadata-filters"
    conditions = [{"key": "k", "operator": "contains", "value": "x" * 1_000_000}]
    for n in range(16):
        await made(api, path, id=f"m{n}", conditions=conditions)
    refused = refusal(
        await api.client.post(path, json={"name": "a", "conditions": conditions}), 409
    )
    assert "acme" in refused
    assert "16777216 bytes" in refused
    await made(api, path, id="small", conditions=[{"key": "k", "operator": "exists"}])
    answer = await api.client.patch(f"{path}/small", json={"conditions": conditions})
    assert refusal(answer, 409) == refused
    other = await api.as_org_unit("other")
    answer = await other.post(path, json={"name": "a", "conditions": conditions})
    assert answer.status_code == 201
    conditions[0]["operator"] = "equals"
    answer = await api.client.patch(f"{path}/m1", json={"name": "b", "conditions": conditions})
    assert answer.status_code == 200
    assert (await api.client.delete(f"{path}/m0")).status_code == 204
    assert (await api.client.patch(f"{path}/small", json={"conditions": conditions})).is_success


async def test_what_conditions_take_in_memory_is_bounded_however_they_come(api: Api) -> None:
    """Those of one filter, and those of all of an org unit, when it is made, replaced and changed."""
    path, one = "/metadata-filters", "/metadata-filters/one"
    await made(api, path, id="one")
    heavy = [{"key": "k", "operator": "matches", "value": rf"\pL{{53}}|{n}"} for n in range(7)]
    asked = (("POST", path), ("PUT", one), ("PATCH", one))
    for method, where in asked:
        answer = await api.client.request(method, where, json={"name": "a", "conditions": heavy})
        assert "at most 4194304 bytes in memory" in refusal(answer, 400)
    lists = [{"key": "k", "operator": "in", "value": [*range(10_000, 11_000)]}] * 20
    for n in range(21):
        await made(api, path, id=f"m{n}", conditions=lists)
    for method, where in asked:
        answer = await api.client.request(method, where, json={"name": "a", "conditions": lists})
        assert "67108864 bytes in memory" in refusal(answer, 409)
    assert (await api.client.patch(f"{path}/m1", json={"name": "b"})).is_success
    assert (await api.client.delete(f"{path}/m1")).is_success
    assert (await api.client.patch(one, json={"conditions": lists})).is_success


async def test_a_page_of_large_changes_has_32_mb_at_most(api: Api) -> None:
    """More of them are refused by the parameter that is too much; the default page of the audit log always fits."""
    path = "/metadata-filters/large"
    conditions = [{"key": "k", "operator": "contains", "value": "x" * 1_040_000}]
    await made(api, "/metadata-filters", id="large", conditions=conditions)
    for n in range(34):
        assert (await api.client.patch(path, json={"name": str(n)})).status_code == 200
    for where, fits in ((f"{path}/versions?limit=30", 30), ("/audit", 25), ("/audit?limit=30", 30)):
        found = (await api.client.get(where)).json()
        assert len(found if isinstance(found, list) else found["entries"]) == fits
    for where in (f"{path}/versions", "/audit?limit=100"):
        assert refusal(await api.client.get(where), 400).startswith("limit: ")


async def test_a_page_of_changes_is_as_large_as_it_is_answered(api: Api) -> None:
    """However many digits the database writes of a number: 141 KB of these are 6 MB there.  Of very many it is asked for fewer."""
    numbers = {"key": "k", "operator": "in", "value": [1e308] * 1_000}
    await made(api, "/metadata-filters", id="many", conditions=[numbers] * 20)
    for n in range(24):
        answer = await api.client.patch("/metadata-filters/many", json={"name": str(n)})
        assert answer.status_code == 200
    answer = await api.client.get("/audit")
    assert [entry["details"]["version"] for entry in answer.json()["entries"]] == [
        *range(25, 0, -1)
    ]
    assert len(answer.content) < 25 * 200_000
    await api.database.execute(
        "INSERT INTO audit_log (org_unit, at, actor, action, subject, details)"
        " SELECT org_unit, at, actor, action, subject, details FROM audit_log"
    )
    assert refusal(await api.client.get("/audit?limit=50"), 400).startswith("limit: ")


@both
async def test_filters_of_another_org_unit_are_not_there(api: Api, path: str) -> None:
    """Whatever is asked of them; its ids are its own, and a body's org unit says nothing."""
    await made(api, path, id="one")
    other = await api.as_org_unit("other")
    assert (await other.get(path)).json() == []
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        refusal(await other.request(method, f"{path}/one", json=BODIES[path]), 404)
    refusal(await other.get(f"{path}/one/versions"), 404)
    own = await other.post(path, json={"id": "one", "org_unit": ORG, **BODIES[path]})
    assert (own.status_code, own.json()["org_unit"]) == (201, "other")


@both
async def test_who_may_read_may_not_write(api: Api, path: str) -> None:
    """Checked after the token and before the body."""
    await made(api, path, id="one")
    reader = await api.as_org_unit(ORG, scopes=["filters:read"])
    writer = await api.as_org_unit(ORG, scopes=["filters:write"])
    nobody = api.bearing(None)
    one = f"{path}/one"
    for method, where, able, unable in (
        ("GET", path, reader, writer),
        ("GET", one, reader, writer),
        ("GET", f"{one}/versions", reader, writer),
        ("GET", "/rules", reader, writer),
        ("POST", path, writer, reader),
        ("PUT", one, writer, reader),
        ("PATCH", one, writer, reader),
    ):
        bad, status = (None, 200) if method == "GET" else (b"{", 400)
        assert (await able.request(method, where, content=bad)).status_code == status
        assert "filters:" in refusal(await unable.request(method, where, content=bad), 403)
        refusal(await nobody.request(method, where, content=bad), 401)
    refusal(await reader.delete(one), 403)
    refusal(await nobody.delete(one), 401)
