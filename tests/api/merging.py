"""What tests of merges share: commands as upstream sends them, events of leads, and waiting for a merge to be over."""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Literal

from processor.io import merges
from processor.io.merges import Merged
from processor.pure.types import MergeCommand
from tests.api.client import ORG, Api
from tests.harness import Message, produce, until
from tests.unit.merge_records import NoRecord

_OFFSETS = count(1)


def leads(target: str, *sources: str) -> dict[str, Any]:
    """The body of a merge."""
    return {"targetLeadId": target, "sourceLeadIds": list(sources)}


async def ask(api: Api, path: str, target: str, *sources: str) -> str:
    """The id of a merge or unmerge that was accepted."""
    answer = await api.client.post(path, json=leads(target, *sources))
    assert answer.status_code == 202, answer.text
    merge_id: str = answer.json()["mergeId"]
    assert answer.headers["location"] == f"/leads/merges/{merge_id}"
    return merge_id


async def progress(api: Api, merge_id: str) -> dict[str, Any]:
    """What the API says of it."""
    answer = await api.client.get(f"/leads/merges/{merge_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def over(api: Api, merge_id: str) -> dict[str, Any]:
    """Its progress, once it is done."""

    async def done() -> dict[str, Any]:
        found = await progress(api, merge_id)
        return found if found["status"] in ("done", "no_op") else {}

    return await until(done, 30)


async def done(api: Api, path: str, target: str, *sources: str) -> dict[str, Any]:
    """Asks, and waits until it is done."""
    return await over(api, await ask(api, path, target, *sources))


async def send(api: Api, events: Iterable[tuple[str, str]]) -> None:
    """Events given as (id, lead), one an hour; returns when their rows are there."""
    sent = [
        Message(
            f'{{"org_unit":"{ORG}","id":"{event_id}","lead_id":"{lead}","event_type":"page_view",'
            f'"timestamp":"2025-01-15T{n:02}:00:00Z"}}'.encode(),
            lead.encode(),
        )
        for n, (event_id, lead) in enumerate(events)
    ]
    before = await rows(api)
    await produce(api.world.kafka, api.world.raw, sent)

    async def stored() -> bool:
        return len(await rows(api)) == len(before) + len(sent)

    await until(stored, 30)


async def rows(api: Api) -> dict[str, tuple[str, str | None]]:
    """Lead and original lead of every event that is no merge's, as the listing shows them."""
    found: dict[str, tuple[str, str | None]] = {}
    answer = await api.client.get("/events", params={"event_type": "page view", "limit": 100})
    for event in answer.json()["events"]:
        found[event["id"]] = event["lead_id"], event["original_lead_id"]
    return found


def command(
    target: str,
    sources: Sequence[str],
    kind: Literal["merge", "unmerge"] = "merge",
    org_unit: str = ORG,
) -> MergeCommand:
    """A new message of the merge topic, from upstream."""
    offset = next(_OFFSETS)
    at = 1_700_000_000_000 + offset
    record = NoRecord(offset=offset, timestamp=at)
    names = tuple(dict.fromkeys(sources))
    return MergeCommand(record, f"{offset:032x}", org_unit, target, names, None, kind, at)


async def apply(api: Api, asked: MergeCommand) -> Merged:
    """What a worker does with it; rows do not move yet."""
    return await merges.apply(api.owner, asked)


async def move(api: Api) -> None:
    """What workers do afterwards."""
    while await merges.move_step(api.owner) is not None:
        pass
