"""Leads that turn out to be one person: asked for here, done by the worker, told apart again by an unmerge."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from processor.api import bodies
from processor.api.answers import json, optional_time, time_text
from processor.api.auth import LeadsMerger
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.services import Services, Serving
from processor.io import merge_view
from processor.io.merge_view import Standing, Wanted
from processor.io.producing import Place, Sending, TooLargeError
from processor.pure import merge
from processor.pure.faults import Fault
from processor.pure.merge import Edge, Forest
from processor.pure.parse import LONGEST_ID, MOST_SOURCES, derived_id, merge_asked

_MERGE_ID = re.compile(r"[0-9a-f]{32}")
_MOST_NAMED = 10

router = APIRouter(tags=["leads"])


class _Spelt(BaseModel):
    """Leads and merges are spelt in camelCase on this side."""

    model_config = ConfigDict(alias_generator=to_camel)


class Leads(_Spelt):
    """Who becomes one with whom."""

    target_lead_id: str = Field(min_length=1, max_length=LONGEST_ID)
    source_lead_ids: list[Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]] = Field(
        min_length=1, max_length=MOST_SOURCES
    )


class MergeProgress(_Spelt):
    """How far a merge or unmerge is.  Readers see its result from `moving` on, wherever its rows still stand."""

    merge_id: str = Field(description="Also the id of its event on the survivor's timeline.")
    kind: Literal["merge", "unmerge"]
    status: Literal["pending", "moving", "done", "no_op"]
    target_lead_id: str
    source_lead_ids: list[str]
    survivor_lead_id: str | None = Field(description="Of the target; null while pending.")
    merged_lead_ids: list[str] = Field(description="The sources less those that were no-ops.")
    events_moved: int | None = Field(description="In all; null until they are counted.")
    events_left: int = Field(description="Rows still to be looked at, of which it moves its own.")
    requested_by: str | None
    requested_at: str | None
    committed_at: str | None


class PreviewedSource(_Spelt):
    """A source: the lead it is now, how many events would move with that, and whether there is nothing to do."""

    lead_id: str
    root_lead_id: str
    events: int
    no_op: bool


class MergePreview(_Spelt):
    """What a merge would do now; sources that are one lead already count once in `eventsToMove`."""

    survivor_lead_id: str
    sources: list[PreviewedSource]
    events_to_move: int
    exact: bool = Field(description="False: the numbers are at least these.")


_LEADS: Mapping[str, Any] = {"targetLeadId": "ld_1", "sourceLeadIds": ["ld_456", "ld_457"]}
_PENDING: Mapping[str, Any] = {
    "mergeId": "0123456789abcdef0123456789abcdef",
    "kind": "merge",
    "status": "pending",
    **_LEADS,
    "survivorLeadId": None,
    "mergedLeadIds": [],
    "eventsMoved": None,
    "eventsLeft": 0,
    "requestedBy": "ada",
    "requestedAt": "2025-01-15T10:30:00Z",
    "committedAt": None,
}
_DONE: Mapping[str, Any] = {
    **_PENDING,
    "status": "done",
    "survivorLeadId": "ld_1",
    "mergedLeadIds": ["ld_456", "ld_457"],
    "eventsMoved": 150,
    "committedAt": "2025-01-15T10:30:00.120Z",
}
_PREVIEW: Mapping[str, Any] = {
    "survivorLeadId": "ld_1",
    "sources": [
        {"leadId": "ld_456", "rootLeadId": "ld_456", "events": 150, "noOp": False},
        {"leadId": "ld_457", "rootLeadId": "ld_1", "events": 0, "noOp": True},
    ],
    "eventsToMove": 150,
    "exact": True,
}


@router.post(
    "/leads/merge",
    **documented(
        MergeProgress,
        _PENDING,
        status=202,
        errors=(400, 413, 415),
        body=Leads,
        body_example=_LEADS,
    ),
)
async def merge_leads(request: Request, serving: Serving, merger: LeadsMerger) -> Response:
    """Merge the sources, with all that was merged into them before, into the target's surviving lead."""
    target, sources = await _asked(request)
    now = serving.clock()
    wanted = Wanted(merger.org_unit, "merge", target, sources, merger.name, now)
    return await _requested(serving, wanted)


@router.post(
    "/leads/unmerge",
    **documented(
        MergeProgress,
        {**_PENDING, "kind": "unmerge"},
        status=202,
        errors=(400, 409, 413, 415),
        body=Leads,
        body_example=_LEADS,
    ),
)
async def unmerge_leads(request: Request, serving: Serving, merger: LeadsMerger) -> Response:
    """Take back the merge that joined each source to the target; 409 names those that none did."""
    target, sources = await _asked(request)
    forest = await merge_view.forest(serving.postgres, merger.org_unit, target, sources)
    joined = merge.joining(forest, target, sources)
    strangers = [lead for lead in sources if joined[lead] is None]
    if strangers:
        raise Refused(409, f"Not merged into {target}: {_some(strangers)}")
    now = serving.clock()
    wanted = Wanted(merger.org_unit, "unmerge", target, sources, merger.name, now)
    return await _requested(serving, wanted)


@router.post(
    "/leads/merge/preview",
    **documented(MergePreview, _PREVIEW, errors=(400, 413, 415), body=Leads, body_example=_LEADS),
)
async def preview_merge(request: Request, serving: Serving, merger: LeadsMerger) -> Response:
    """What a merge would do, without doing it; of more than a million events it says so, and counts no further."""
    target, sources = await _asked(request)
    found = await merge_view.standing(serving.postgres, merger.org_unit, target, sources)
    return json(_previewed(found, target, sources))


@router.get(
    "/leads/merges/{merge_id}",
    **documented(MergeProgress, _DONE, errors=(404,)),
)
async def show_merge(serving: Serving, merger: LeadsMerger, merge_id: str) -> Response:
    """How far a merge or unmerge is, whoever asked for it; the id is also that of its event on the survivor's timeline."""
    row = None
    if _MERGE_ID.fullmatch(merge_id):
        row = await merge_view.progress(serving.postgres, merger.org_unit, merge_id)
    if row is None:
        raise Refused(404, "There is no such merge")
    return json(_progress(merge_id, row))


async def _asked(request: Request) -> tuple[str, Sequence[str]]:
    asked = merge_asked(await bodies.small(request))
    if isinstance(asked, Fault):
        raise Refused(400, asked.reason)
    return asked


async def _requested(serving: Services, wanted: Wanted) -> Response:
    """Hand it to Kafka, then remember it.  Should that fail the caller asks again: a repeated merge does nothing."""
    place = await _sent(serving, wanted)
    merge_id = derived_id(place.topic, place.partition, place.offset, place.timestamp)
    await merge_view.requested(serving.postgres, wanted, merge_id)
    pending = {
        **_PENDING,
        "mergeId": merge_id,
        "kind": wanted.kind,
        "targetLeadId": wanted.target,
        "sourceLeadIds": wanted.sources,
        "requestedBy": wanted.requested_by,
        "requestedAt": time_text(wanted.requested_at),
    }
    return json(pending, 202, {"Location": f"/leads/merges/{merge_id}"})


async def _sent(serving: Services, wanted: Wanted) -> Place:
    message = {
        "org_unit": wanted.org_unit,
        "target_lead_id": wanted.target,
        "source_lead_ids": wanted.sources,
        "requested_by": wanted.requested_by,
        "kind": wanted.kind,
    }
    record = Sending(
        serving.settings.merge_topic,
        wanted.org_unit.encode(),
        orjson.dumps(message),
        wanted.requested_at,
    )
    try:
        (place,) = await serving.producing.send([record])
    except TooLargeError as error:
        raise Refused(
            413, "The merge is larger than its topic takes: name fewer sources"
        ) from error
    return place


def _progress(merge_id: str, row: Any) -> Mapping[str, Any]:
    return {
        "mergeId": merge_id,
        "kind": row["kind"],
        "status": _status(row),
        "targetLeadId": row["target"],
        "sourceLeadIds": row["sources"],
        "survivorLeadId": row["survivor"],
        "mergedLeadIds": row["merged"],
        "eventsMoved": row["events_moved"] if row["recorded"] and not row["counting"] else None,
        "eventsLeft": row["remaining"],
        "requestedBy": row["requested_by"],
        "requestedAt": optional_time(row["requested_at"]),
        "committedAt": optional_time(row["committed_at"]),
    }


def _status(row: Any) -> str:
    if not row["recorded"]:
        return "pending"
    if not row["merged"]:
        return "no_op"
    return "moving" if row["counting"] or row["moves"] else "done"


def _previewed(found: Standing, target: str, sources: Sequence[str]) -> Mapping[str, Any]:
    change = merge.merge(
        Forest(
            {lead: Edge(root, frozenset()) for lead, root in found.roots.items() if lead != root}
        ),
        target,
        sources,
    )
    return {
        "survivorLeadId": change.survivor,
        "sources": [
            {
                "leadId": lead,
                "rootLeadId": found.roots[lead],
                "events": found.events.get(found.roots[lead], 0),
                "noOp": lead not in change.named,
            }
            for lead in sources
        ],
        "eventsToMove": sum(found.events[root] for root in change.joined),
        "exact": found.exact,
    }


def _some(leads: Sequence[str]) -> str:
    named = ", ".join(leads[:_MOST_NAMED])
    more = len(leads) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
