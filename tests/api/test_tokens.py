"""Tokens: made and taken back by command, believed for as long as they are in force, and for their scopes alone."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from processor.failures import StartRefused
from processor.io import tokens
from processor.io.clock import now_ms
from processor.token_options import wanted
from tests.api.client import Api, api
from tests.harness import processor, until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

SCOPES = {
    ("get", "/events"): "events:read",
    ("get", "/events/{lead_id}"): "events:read",
    ("delete", "/events/batch"): "events:delete",
    ("get", "/event-types"): "events:read",
    ("get", "/suppression/summary"): "events:read",
    ("post", "/ingest"): "ingest",
    ("post", "/leads/merge"): "leads:merge",
    ("post", "/leads/merge/preview"): "leads:merge",
    ("post", "/leads/unmerge"): "leads:merge",
    ("get", "/leads/merges/{merge_id}"): "leads:merge",
    ("get", "/audit"): "audit:read",
}
ENDLESS = {"/stream"}


async def run(api: Api, *arguments: str) -> str:
    """What a command prints on stdout."""
    return await asyncio.to_thread(processor, api.world.environment(), "tokens", *arguments)


async def operations(api: Api) -> AsyncIterator[tuple[str, str]]:
    """Method and path of everything that is described."""
    described = (await api.client.get("/openapi.json")).json()
    for path, item in described["paths"].items():
        for method in item:
            if path not in ENDLESS:
                yield method, path


def refused(answer: httpx.Response) -> bool:
    """Whether the token is refused, in the words of the contract."""
    if answer.status_code != 401:
        return False
    assert answer.json()["error"] == {
        "code": "unauthorized", "message": "Check authentication token",
    }  # fmt: skip
    assert answer.headers["www-authenticate"].startswith("Bearer")
    return True


async def test_the_way_of_a_token(api: Api) -> None:
    """Created: the last line alone is the token.  Listed without its secret.  Revoked: refused, and listed as that."""
    printed = await run(
        api, "create", "--org-unit", "acme", "--name", "bob",
        "--scopes", "events:read, audit:read", "--expires", "90d",
    )  # fmt: skip
    token = printed.splitlines()[-1]
    assert printed.splitlines() == [token]
    (row,) = await api.database.fetch("SELECT * FROM tokens WHERE name = 'bob'")
    assert row["hash"] == hashlib.sha256(token.encode()).digest()
    assert row["scopes"] == ["audit:read", "events:read"]
    assert (row["expires_at"] - row["created_at"]).days == 90
    bob = api.bearing(token)
    assert (await bob.get("/events")).status_code == 200
    assert (await bob.get("/audit")).status_code == 200
    assert (await bob.post("/leads/merge", json={})).status_code == 403
    assert (await run(api, "revoke", token)).strip() == f"{row['prefix']}: revoked"
    (line,) = (await run(api, "list", "--org-unit", "acme")).splitlines()[-1:]
    assert line.startswith(f"{row['prefix']}  acme  bob  audit:read,events:read  ")
    assert "revoked" in line
    assert token.split("_", 2)[2] not in line


async def test_a_token_without_further_options_may_do_everything_for_ever(api: Api) -> None:
    """The default of the command."""
    asked = wanted("acme", "bob", None, None)
    assert (tuple(asked.scopes), asked.lasts_ms) == (tokens.SCOPES, None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("", "bob", None, None), "--org-unit"),
        (("x" * 65, "bob", None, None), "--org-unit"),
        (("acme", "", None, None), "--name"),
        (("acme", "b\0b", None, None), "--name"),
        (("acme", "bob", "events:read,everything", None), "everything"),
        (("acme", "bob", "", None), "--scopes"),
        (("acme", "bob", None, "soon"), "--expires"),
        (("acme", "bob", None, "0d"), "--expires"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(options: Any, named: str) -> None:
    """The command ends with code 2."""
    with pytest.raises(StartRefused) as refusal:
        wanted(*options)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


async def test_what_is_no_token_in_force_is_refused(api: Api) -> None:
    """None, another scheme, an unknown one, a prefix with another secret, one that is too long."""
    token = api.client.headers["authorization"].split()[1]
    assert refused(await api.bearing(None).get("/events"))
    for wrong in ("x", token[:-1], token[:-1] + "!", token + "x", "x" * 200):
        assert refused(await api.bearing(wrong).get("/events")), wrong
    stolen = token[:21] + secrets.token_urlsafe(32)
    assert refused(await api.bearing(stolen).get("/events"))
    basic = await api.bearing(None).get("/events", headers={"Authorization": f"Basic {token}"})
    assert refused(basic)
    lower = await api.bearing(None).get("/events", headers={"Authorization": f"bearer {token}"})
    assert lower.status_code == 200
    assert refused(await api.bearing(None).get(f"/events?access_token={token}&token={token}"))


async def test_a_revoked_token_is_refused_within_five_seconds(api: Api) -> None:
    """Also by an API that has just believed it."""
    token = await api.token(name="bob")
    bob = api.bearing(token)
    assert (await bob.get("/events")).status_code == 200
    assert await tokens.revoke(api.owner, token.split("_")[1], "test")
    began = time.monotonic()

    async def out() -> bool:
        return refused(await bob.get("/events"))

    await until(out, 8)
    assert time.monotonic() - began < 5


async def test_a_token_ends_at_its_expiry_to_the_millisecond(api: Api) -> None:
    """Whether or not it has just been believed."""
    token = await api.token(lasts_ms=60_000, name="bob")
    query = "SELECT (extract(epoch FROM expires_at) * 1000)::bigint FROM tokens WHERE name = 'bob'"
    ends = await api.database.fetchval(query)
    bob = api.bearing(token)
    for at, status in ((ends - 2, 200), (ends - 1, 200), (ends, 401), (ends + 10_000, 401)):
        api.now.at = at
        assert (await bob.get("/events")).status_code == status
    api.now.at = None


async def test_the_last_use_of_a_token_is_noted(api: Api) -> None:
    """Within a minute; a refused one is not used."""
    used, unused = await api.token(name="bob"), await api.token(name="eve", lasts_ms=1)
    api.now.at = now_ms() + 1_000
    assert (await api.bearing(used).get("/events")).status_code == 200
    assert refused(await api.bearing(unused).get("/events"))
    await api.services.tokens.note_use()
    rows = await api.database.fetch("SELECT name, used_at FROM tokens WHERE name IN ('bob', 'eve')")
    noted = {row["name"]: row["used_at"] for row in rows}
    assert noted["bob"] is not None
    assert noted["eve"] is None


@pytest.mark.timeout(120)
async def test_each_operation_asks_for_the_token_then_its_scope_then_its_body(api: Api) -> None:
    """With a body that would be refused, each of the scopes, and none."""
    with_one = {scope: await api.as_org_unit("acme", scopes=[scope]) for scope in tokens.SCOPES}
    nobody = api.bearing(None)
    async for method, path in operations(api):
        target = path.replace("{", "").replace("}", "")
        bad: dict[str, Any] = {"content": b"{", "headers": {"Content-Type": "text/plain"}}
        assert refused(await nobody.request(method, target, **bad)), path
        enough = [
            scope
            for scope, client in with_one.items()
            if (await client.request(method, target, **bad)).status_code != 403
        ]
        assert len(enough) == 1, (method, path, enough)
        if (method, path) in SCOPES:
            assert enough == [SCOPES[method, path]]
        elif "filters" in path:
            assert enough[0].startswith("filters:")
            assert method == "get" or path.endswith("/preview") or enough == ["filters:write"]


async def test_the_org_unit_is_that_of_the_token_whatever_is_asked(api: Api) -> None:
    """Two org units with the same lead."""
    other = await api.as_org_unit("other")
    ours = await api.client.post("/leads/merge", json={
        "targetLeadId": "A", "sourceLeadIds": ["B"], "org_unit": "other", "orgUnit": "other",
    })  # fmt: skip
    assert ours.status_code == 202
    merge_id = ours.json()["mergeId"]
    assert (await other.get(f"/leads/merges/{merge_id}?org_unit=acme")).status_code == 404
    assert (await api.client.get(f"/leads/merges/{merge_id}?org_unit=other")).status_code == 200
