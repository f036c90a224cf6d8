"""What exists in another org unit is nothing at all to this one: at every operation, and on every topic's way."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest

from processor.io import filters
from processor.io.clock import now_ms
from processor.pure.enriched import Organic
from schemas import FilterFile
from tests.api import sse
from tests.api.client import Api, api
from tests.api.counting import count
from tests.api.merging import apply, command
from tests.api.rows import row, store
from tests.harness import read_topic
from tests.security.attacks import Ask, described, everything_of, filled

__all__ = ["api"]
pytestmark = pytest.mark.e2e

THEM, SECRET = "other", "hidden"
ENDLESS = ("get", "/stream")
EXISTS = {"key": "k", "operator": "exists"}
VELOCITY = {"name": "@", "event_type": "@", "threshold": 1, "window_ms": 1000}
METADATA = {"name": "@", "event_type": "@", "conditions": [EXISTS]}
LEADS = {"targetLeadId": "own", "sourceLeadIds": ["@"], "org_unit": THEM}
INTO = {"targetLeadId": "@", "sourceLeadIds": ["own"], "org_unit": THEM}
EVENT = {"id": "@", "lead_id": "@", "event_type": "@", "org_unit": THEM, "metadata": {"k": "@"}}
CHANGES: Sequence[Mapping[str, str]] = ({}, {"If-Match": "*"}, {"If-Match": '"1"'})

ASKED: Mapping[tuple[str, str], Sequence[Ask]] = {
    ("get", "/events"): [
        Ask(),
        Ask({"lead_id": "@"}),
        Ask({"event_type": "@"}),
        Ask({"suppression_reason": "any", "range": "last_90d", "limit": "100"}),
    ],
    ("get", "/events/{lead_id}"): [Ask(), Ask({"event_type": "@", "range": "last_90d"})],
    ("delete", "/events/batch"): [Ask(body={"event_ids": ["@", "@-2"], "org_unit": THEM})],
    ("get", "/event-types"): [Ask()],
    ("get", "/suppression/summary"): [Ask(), Ask({"event_type": "@", "range": "last_90d"})],
    ("get", "/rules"): [Ask()],
    ("get", "/leads"): [Ask()],
    ("get", "/leads/{lead_id}"): [Ask()],
    ("get", "/audit"): [Ask(), Ask({"actor": "@"}), Ask({"action": "filter.create"})],
    ("get", "/leads/merges/{merge_id}"): [Ask()],
    ("post", "/leads/merge/preview"): [Ask(body=LEADS), Ask(body=INTO)],
    ("post", "/leads/unmerge"): [
        Ask(body=LEADS),
        Ask(body={"targetLeadId": "@", "sourceLeadIds": ["@-source"]}),
    ],
    ("get", "/velocity-filters"): [Ask()],
    ("get", "/metadata-filters"): [Ask()],
    ("get", "/velocity-filters/{filter_id}"): [Ask()],
    ("get", "/metadata-filters/{filter_id}"): [Ask()],
    ("get", "/velocity-filters/{filter_id}/versions"): [Ask()],
    ("get", "/metadata-filters/{filter_id}/versions"): [Ask()],
    ("post", "/velocity-filters/preview"): [
        Ask(body={"filter": {**VELOCITY, "id": "@", "org_unit": THEM}, "range": "last_90d"})
    ],
    ("post", "/metadata-filters/preview"): [
        Ask(body={"filter": {**METADATA, "id": "@", "event_type": ""}, "range": "last_90d"})
    ],
    ("put", "/velocity-filters/{filter_id}"): [Ask(body=VELOCITY, headers=h) for h in CHANGES],
    ("put", "/metadata-filters/{filter_id}"): [Ask(body=METADATA, headers=h) for h in CHANGES],
    ("patch", "/velocity-filters/{filter_id}"): [
        Ask(body={"enabled": False, "org_unit": THEM}, headers=h) for h in CHANGES
    ],
    ("patch", "/metadata-filters/{filter_id}"): [
        Ask(body={"enabled": False, "org_unit": THEM}, headers=h) for h in CHANGES
    ],
    ("delete", "/velocity-filters/{filter_id}"): [Ask(headers=h) for h in CHANGES],
    ("delete", "/metadata-filters/{filter_id}"): [Ask(headers=h) for h in CHANGES],
    # From here on something of this org unit is made, under the ids that the other one has.
    ("post", "/ingest"): [
        Ask(body=EVENT),
        Ask(body=[EVENT, {**EVENT, "id": None}]),
        Ask(body=EVENT, headers={"Idempotency-Key": "@"}),
    ],
    ("post", "/leads/merge"): [Ask(body=LEADS), Ask(body=INTO)],
    ("post", "/velocity-filters"): [Ask(body={**VELOCITY, "id": "@", "org_unit": THEM})],
    ("post", "/metadata-filters"): [Ask(body={**METADATA, "id": "@", "org_unit": THEM})],
}
"""Of every operation, with what the other org unit has in place of `@`."""
VARIES = re.compile(r"[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+Z")


async def seeded(api: Api) -> str:
    """Everything that an org unit can have, under the name ``theirs``; the id of its merge."""
    now = now_ms() // 1000 * 1000
    more: dict[str, Any] = {"org_unit": THEM, "event_type": "Theirs", "metadata": {"k": SECRET}}
    by = {"filter_id": "theirs", "filter_version": 1, "filter_name": SECRET}
    reasons = {0: "inorganic", 1: None, 2: "metadata_filter"}
    await store(
        api.database,
        [
            row(
                n,
                id="theirs" if n == 0 else f"theirs-{n}",
                lead_id="theirs",
                occurred_at=now - n * 1000,
                suppression_reason=reason,
                suppressed_by=by if reason else None,
                **more,
            )
            for n, reason in reasons.items()
        ],
    )
    velocity = {**VELOCITY, "id": "theirs", "name": SECRET, "event_type": "theirs"}
    metadata = {**METADATA, "id": "mtheirs", "name": SECRET, "event_type": "theirs"}
    file = {"velocity_filters": [velocity], "metadata_filters": [metadata]}
    await filters.apply(api.owner, FilterFile.model_validate({"org_units": {THEM: file}}), "theirs")
    merge = command("theirs", ["theirs-source"], org_unit=THEM)
    await apply(api, merge)
    await count(api, Organic(THEM, "theirs", "theirs", "Theirs", now))
    return merge.message_id


async def answered(
    client: httpx.AsyncClient, operation: tuple[str, str], ask: Ask, ids: Mapping[str, str]
) -> str:
    """Status and body, with `@` again for what was asked about and nothing of what is different each time."""
    method, path = operation
    what = ids["filter_id" if "filters" in path else "lead_id"]
    asked = ask.about(what)
    answer = await client.request(
        method,
        filled(path, {**ids, "filter_id": what}),
        params={**asked.query, "org_unit": THEM, "orgUnit": THEM},
        json=asked.body,
        headers={**asked.headers, "X-Org-Unit": THEM},
    )
    text = VARIES.sub("*", answer.text)
    return f"{answer.status_code} {text.replace(what, '@').replace(what.title(), '@')}"


def ids_of(name: str, merge_id: str, path: str) -> Mapping[str, str]:
    """Filters of both kinds share their ids, so those of metadata have a name of their own."""
    of_filter = f"m{name}" if path.startswith("/metadata") else name
    return {"lead_id": name, "merge_id": merge_id, "filter_id": of_filter}


async def test_at_every_operation_what_is_theirs_is_as_what_does_not_exist(api: Api) -> None:
    """The same answer in every word, nothing of theirs in it, and every row of theirs is afterwards as it was."""
    merge_id = await seeded(api)
    before = await everything_of(api.database, THEM)
    assert sum(map(len, before.values())) > 15
    for operation, asks in ASKED.items():
        for ask in asks:
            theirs, nobodys = [
                await answered(api.client, operation, ask, ids_of(name, merge, operation[1]))
                for name, merge in (("theirs", merge_id), ("nobody", "0" * 32))
            ]
            assert theirs == nobodys, (operation, ask)
            assert SECRET not in theirs
            assert not theirs.startswith("5"), theirs
    assert await everything_of(api.database, THEM) == before
    for topic in (api.world.raw, api.world.merges):
        sent = [
            json.loads(record.value or b"") for record in await read_topic(api.world.kafka, topic)
        ]
        assert {one["org_unit"] for one in sent} == {"acme"}


async def test_every_operation_is_asked(api: Api) -> None:
    """A new one without a case makes this fail."""
    paths = await described(api)
    assert {(method, path) for path, item in paths.items() for method in item} == {*ASKED, ENDLESS}


async def test_the_owner_of_what_was_asked_about_sees_it(api: Api) -> None:
    """Else nothing would be shown by what others do not see."""
    merge_id = await seeded(api)
    them = await api.as_org_unit(THEM)
    for operation, asks in ASKED.items():
        if operation[0] == "get" and "{" in operation[1]:
            ids = ids_of("theirs", merge_id, operation[1])
            assert (await answered(them, operation, asks[0], ids)).startswith("200"), operation


async def test_a_stream_goes_on_after_their_last_event_without_them(api: Api) -> None:
    """An id tells a place in the topics, which all share, and opens nothing of what is there."""
    them = await api.as_org_unit(THEM)
    async with sse.listening(them) as stream:
        await sse.publish(api.world, [sse.enriched("theirs", THEM)])
        (seen,) = await stream.has(1)
    await sse.publish(
        api.world,
        [sse.enriched("theirs-2", THEM), sse.enriched("own"), sse.merged("m", org_unit=THEM)],
    )
    async with sse.listening(api.client, "?event_type=page_view", seen.id) as ours:
        await ours.has(1)
        await sse.publish(api.world, [sse.enriched("last")])
        await ours.has(2)
    assert ours.ids() == ["own", "last"]
