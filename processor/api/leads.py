"""Leads with what the engagement service has counted: scores as of now, sessions, first and last organic event."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from processor.api.answers import json, time_text
from processor.api.auth import EventsReader
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.listing import LARGEST_LIMIT, PageNumber, WholeNumber
from processor.api.paths import LEAD
from processor.api.services import Serving
from processor.io import engagement_view
from processor.io.engagement_view import Engaged
from processor.pure.faults import unstorable
from processor.pure.score import score_at

LONGEST_ID = 128

router = APIRouter(tags=["leads"])


class ScoredLead(BaseModel):
    """A lead that has organic events; suppressed ones do not count."""

    lead_id: str
    score: float = Field(description="As of now: what an event is worth halves every 7 days.")
    sessions: int = Field(description="Runs of events with no more than 30 minutes between them.")
    first_organic_event: str
    last_organic_event: str


class LeadSession(BaseModel):
    """A session, from its first to its last event."""

    started_at: str
    ended_at: str
    events: int


class LeadDetail(ScoredLead):
    """The same with its newest sessions, newest first."""

    recent_sessions: list[LeadSession]


class LeadPage(BaseModel):
    """A page of leads, highest score first; `total` counts all of them."""

    leads: list[ScoredLead]
    total: int
    page: int
    limit: int


class AskedLeads(BaseModel):
    """Which page of leads."""

    model_config = ConfigDict(frozen=True)

    page: PageNumber = 1
    limit: Annotated[WholeNumber, Query(ge=1, le=LARGEST_LIMIT, description="Leads of a page.")] = (
        25
    )


_SCORED: Mapping[str, Any] = {
    "lead_id": "ld_1",
    "score": 12.5,
    "sessions": 2,
    "first_organic_event": "2025-01-14T09:00:00Z",
    "last_organic_event": "2025-01-15T10:31:00Z",
}
_DETAIL: Mapping[str, Any] = {
    **_SCORED,
    "recent_sessions": [
        {
            "started_at": "2025-01-15T10:30:00Z",
            "ended_at": "2025-01-15T10:31:00Z",
            "events": 3,
        },
        {
            "started_at": "2025-01-14T09:00:00Z",
            "ended_at": "2025-01-14T09:00:00Z",
            "events": 1,
        },
    ],
}
_PAGE = {"leads": [_SCORED], "total": 150, "page": 1, "limit": 25}


@router.get("/leads", **documented(LeadPage, _PAGE, errors=(400,)))
async def list_leads(
    serving: Serving, reader: EventsReader, asked: Annotated[AskedLeads, Depends(AskedLeads)]
) -> Response:
    """Leads of the org unit that have organic events, highest score first, then by id."""
    found, total = await engagement_view.by_score(
        serving.postgres, reader.org_unit, asked.page, asked.limit
    )
    now = serving.clock()
    leads = [_scored(lead, now) for lead in found]
    return json({"leads": leads, "total": total, "page": asked.page, "limit": asked.limit})


@router.get(f"/leads/{LEAD}", **documented(LeadDetail, _DETAIL, errors=(404,)))
async def show_lead(
    serving: Serving,
    reader: EventsReader,
    lead_id: Annotated[
        str, Path(description="Any characters; a merged-away lead means its survivor.")
    ],
) -> Response:
    """A lead with its newest sessions; 404 where it has no organic events."""
    found = None
    if len(lead_id) <= LONGEST_ID and not unstorable(lead_id):
        found = await engagement_view.of_lead(serving.postgres, reader.org_unit, lead_id)
    if found is None:
        raise Refused(404, "The lead has no organic events")
    recent = [
        {
            "started_at": time_text(session.start),
            "ended_at": time_text(session.end),
            "events": session.events,
        }
        for session in found.recent
    ]
    return json({**_scored(found, serving.clock()), "recent_sessions": recent})


def _scored(lead: Engaged, now: int) -> Mapping[str, Any]:
    return {
        "lead_id": lead.lead_id,
        "score": score_at(lead.score, now),
        "sessions": lead.sessions,
        "first_organic_event": time_text(lead.first),
        "last_organic_event": time_text(lead.last),
    }
