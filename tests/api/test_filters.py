"""Filters over HTTP: what is kept, who changed it, and that nobody's change is lost."""

import asyncio
import json
import re
from typing import Any

import pytest

from processor.io import filters
from schemas import normalise_event_type
from tests.api.client import ORG, Api, api, running
from tests.api.filtering import BODIES, CONDITIONS, VELOCITY, both, made, refusal
from tests.contract.filter_world import file

__all__ = ["api"]
pytestmark = pytest.mark.e2e


async def test_a_velocity_filter_is_answered_as_it_is_in_force(api: Api) -> None:
    """Normalised, with its defaults, its version, and who changed it when."""
    answer = await api.client.post("/velocity-filters", json={"id": "vf-10", **VELOCITY})
    assert answer.status_code == 201
    assert (answer.headers["location"], answer.headers["etag"]) == (
        "/velocity-filters/vf-10",
        '"1"',
    )
    body = answer.json()
    assert body.pop("changed_at").startswith("20")
    assert body == {
        "org_unit": ORG,
        "id": "vf-10",
        "name": "Bursts",
        "event_type": "Page View",
        "threshold": 3,
        "window_ms": 1000,
        "keep_first": False,
        "enabled": True,
        "version": 1,
        "changed_by": "ann",
    }
    again = await api.client.get("/velocity-filters/vf-10")
    assert (again.json(), again.headers["etag"]) == (answer.json(), '"1"')


async def test_a_metadata_filter_comes_back_as_it_was_written(api: Api) -> None:
    """Every operator with its value, numbers as they are."""
    found = await made(api, "/metadata-filters", id="mf-10")
    assert (found["event_type"], found["conditions"]) == ("", CONDITIONS)
    text = (await api.client.get("/metadata-filters/mf-10")).text
    assert '"value":1.0' in text
    assert str(2**64 - 1) in text


@both
async def test_a_filter_without_an_id_is_given_one(api: Api, path: str) -> None:
    """Its kind can be told from it, and another has another."""
    ids = {(await made(api, path))["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(one[:3] == ("vf-" if "velocity" in path else "mf-") for one in ids)
    assert {len(one) for one in ids} == {11}


async def test_a_list_is_enabled_first_then_most_recently_changed(api: Api) -> None:
    """A bare array of the one kind."""
    for name in ("a", "b", "c", "d"):
        await made(api, "/velocity-filters", id=name)
    await made(api, "/metadata-filters", id="m")
    for name in ("b", "d"):
        await api.client.patch(f"/velocity-filters/{name}", json={"enabled": False})
    await api.client.patch("/velocity-filters/a", json={"threshold": 9})
    listed = (await api.client.get("/velocity-filters")).json()
    assert [one["id"] for one in listed] == ["a", "c", "d", "b"]
    assert [one["id"] for one in (await api.client.get("/metadata-filters")).json()] == ["m"]


@both
async def test_an_id_is_taken_over_both_kinds(api: Api, path: str) -> None:
    """Until it is deleted; its version goes on then."""
    await made(api, path, id="one")
    for other, body in BODIES.items():
        taken = refusal(await api.client.post(other, json={"id": "one", **body}), 409)
        assert taken.startswith("id: one is taken by a")
    assert (await api.client.delete(f"{path}/one")).status_code == 204
    other = next(one for one in BODIES if one != path)
    assert (await made(api, other, id="one"))["version"] == 2
    refusal(await api.client.get(f"{path}/one"), 404)


@both
async def test_a_replacement_is_all_there_is_of_it(api: Api, path: str) -> None:
    """What it leaves out has its default again; an answer may be sent back as it came."""
    before = await made(api, path, id="one", enabled=False)
    answer = await api.client.put(f"{path}/one", json={**BODIES[path], "name": "New"})
    assert (answer.json()["name"], answer.json()["enabled"]) == ("New", True)
    assert (answer.json()["version"], answer.headers["etag"]) == (2, '"2"')
    again = await api.client.put(f"{path}/one", json=before)
    assert {**again.json(), "changed_at": ""} == {**before, "version": 3, "changed_at": ""}


@both
async def test_what_changes_nothing_keeps_the_version(api: Api, path: str) -> None:
    """Also where it is spelled otherwise."""
    before = await made(api, path, id="one")
    same = {**BODIES[path], "event_type": before["event_type"].upper(), "version": 77}
    for answer in (
        await api.client.put(f"{path}/one", json=same),
        await api.client.patch(f"{path}/one", json={}),
        await api.client.patch(f"{path}/one", json={"name": before["name"]}),
    ):
        assert (answer.status_code, answer.json()) == (200, before)
    assert len((await api.client.get(f"{path}/one/versions")).json()) == 1


async def test_a_patch_changes_what_it_names(api: Api) -> None:
    """Lists as a whole."""
    before = await made(api, "/metadata-filters", id="one")
    new = [{"key": "k", "operator": "exists"}]
    answer = await api.client.patch("/metadata-filters/one", json={"conditions": new})
    assert answer.json()["conditions"] == new
    assert answer.json()["name"] == before["name"]


@both
async def test_a_change_of_the_version_one_has_seen_is_made(api: Api, path: str) -> None:
    """Or of any version."""
    version = (await made(api, path, id="one"))["version"]
    for tag in ('"{}"', "*", '"77", "{}"', 'W/"2","{}"'):
        headers, new = {"If-Match": tag.format(version)}, {"name": tag}
        changed = await api.client.patch(f"{path}/one", json=new, headers=headers)
        assert (changed.status_code, changed.json()["version"]) == (200, version + 1), tag
        version += 1


@both
async def test_a_change_of_another_version_is_refused(api: Api, path: str) -> None:
    """Whatever the change; nothing is done, and the answer tells the version there is."""
    await made(api, path, id="one")
    await api.client.patch(f"{path}/one", json={"name": "New"})
    one = f"{path}/one"
    for tag in ('"1"', 'W/"2"', "2", '"02"', "", '"*"'):
        more: dict[str, Any] = {"headers": {"If-Match": tag}}
        for answer in (
            await api.client.put(one, json=BODIES[path], **more),
            await api.client.patch(one, json={"name": "Other"}, **more),
            await api.client.delete(one, **more),
        ):
            assert '"2"' in refusal(answer, 412)
    assert (await api.client.get(one)).json()["name"] == "New"


async def test_of_changes_of_one_version_only_one_is_made(api: Api) -> None:
    """Over any number of API processes."""
    await made(api, "/velocity-filters", id="one")
    headers = {"If-Match": '"1"'}
    async with running(api.world) as second, asyncio.TaskGroup() as group:
        changes = [
            group.create_task(
                one.client.patch("/velocity-filters/one", json={"threshold": n}, headers=headers)
            )
            for n, one in enumerate([api, second] * 4, 10)
        ]
    statuses = sorted(change.result().status_code for change in changes)
    assert statuses == [200] + [412] * 7


async def test_of_filters_with_one_id_only_one_is_made(api: Api) -> None:
    """Of either kind."""
    async with asyncio.TaskGroup() as group:
        answers = [
            group.create_task(api.client.post(path, json={"id": "one", **body}))
            for path, body in [*BODIES.items()] * 4
        ]
    assert sorted(answer.result().status_code for answer in answers) == [201] + [409] * 7


@both
async def test_versions_tell_who_and_when(api: Api, path: str) -> None:
    """Newest first, a deletion too; pages go on where one ends."""
    await made(api, path, id="one")
    bob = await api.as_org_unit(ORG, name="bob")
    await bob.patch(f"{path}/one", json={"name": "New"})
    await bob.delete(f"{path}/one")
    found = (await api.client.get(f"{path}/one/versions")).json()
    assert [(v["version"], v["changed_by"], v["deleted"]) for v in found] == [
        (2, "bob", True),
        (2, "bob", False),
        (1, "ann", False),
    ]
    assert found[0]["definition"] is None
    assert (found[1]["definition"]["name"], found[2]["definition"]["id"]) == ("New", "one")
    paged = await api.client.get(f"{path}/one/versions?page=2&limit=2")
    assert paged.json() == found[2:]
    assert (await api.client.get(f"{path}/one/versions?page=9")).json() == []


async def test_the_audit_log_tells_creations_from_changes(api: Api) -> None:
    """And an id that comes back is created again; what was refused or changed nothing is not there."""
    one = "/velocity-filters/one"
    for _ in range(2):
        await made(api, "/velocity-filters", id="one")
        await api.client.post("/velocity-filters", json={"id": "one", **VELOCITY})
        await api.client.patch(one, json={"name": "New"})
        await api.client.patch(one, json={"name": "New"})
        await api.client.delete(one)
    rows = await api.database.fetch(
        "SELECT action, actor, subject, org_unit FROM audit_log WHERE action LIKE 'filter%' ORDER BY id"
    )
    did = ["filter.create", "filter.change", "filter.delete"] * 2
    assert [tuple(row) for row in rows] == [(one, "ann", "one", ORG) for one in did]


async def test_a_type_that_is_sent_back_as_it_is_stored_stays(api: Api) -> None:
    """Also one that is longer than any that is sent, or that would be normalised to another."""
    for n, sent in enumerate(("ß" + "a" * 127, "ŉ_dag")):
        for path in BODIES:
            stored = normalise_event_type(sent)
            before = await made(api, path, id=f"{path[1]}{n}", event_type=sent)
            assert before["event_type"] == stored
            one = f"{path}/{before['id']}"
            for answer in (
                await api.client.patch(one, json={"enabled": False}),
                await api.client.patch(one, json={"event_type": stored}),
                await api.client.put(one, json={**before, "enabled": False}),
            ):
                assert (answer.status_code, answer.json()["version"]) == (200, 2), answer.text
                assert answer.json()["event_type"] == stored
            assert (await api.client.delete(one)).status_code == 204


async def test_what_the_file_applies_the_api_shows(api: Api) -> None:
    """And the other way round: they are the same filters."""

    await made(api, "/metadata-filters", id="mf")
    exported = await filters.export(api.owner, ORG)
    assert [one["id"] for one in exported["org_units"][ORG]["metadata_filters"]] == ["mf"]
    await filters.apply(api.owner, file(**{ORG: [{"id": "vf", **VELOCITY}]}), "cli bob")
    (found,) = (await api.client.get("/velocity-filters")).json()
    assert (found["id"], found["changed_by"]) == ("vf", "cli bob")
    assert (await api.client.get("/metadata-filters")).json() == []


async def test_the_document_of_the_api_refers_to_nothing_outside_of_it(api: Api) -> None:
    """Bodies that handlers read by themselves included; each change says how it may fail."""
    document = (await api.client.get("/openapi.json")).json()
    components = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"(#/[^"]*)"', json.dumps(document))) <= components
    for path in BODIES:
        change = document["paths"][f"{path}/{{filter_id}}"]["patch"]
        assert {"200", "400", "404", "412"} <= set(change["responses"])
        assert "required" not in change["requestBody"]["content"]["application/json"]["schema"]
        assert "If-Match" in {one["name"] for one in change["parameters"]}
        create = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert "id" not in create["schema"]["required"]
