"""Events as they are stored: listings, types, what is suppressed, deletes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from processor.api import bodies
from processor.api.answers import json, time_text
from processor.api.auth import EventsDeleter, EventsReader
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.listing import Asked, Choice, chosen
from processor.api.paths import LEAD
from processor.api.services import Serving
from processor.io import listing
from processor.pure.faults import unstorable

HOUR_MS = 3_600_000
MOST_DELETED = 1_000
LONGEST_ID = 128
_BAD_IDS = "Provide a valid array of event IDs"

router = APIRouter(tags=["events"])


class ListedEvent(BaseModel):
    """An event with its verdict."""

    id: str
    lead_id: str
    event_type: str
    metadata: dict[str, Any]
    suppression_reason: Literal["inorganic", "inorganic_grouped", "metadata_filter"] | None
    original_lead_id: str | None
    created_at: str


class EventPage(BaseModel):
    """A page of events, newest first; `total` counts all of them."""

    events: list[ListedEvent]
    total: int
    page: int
    limit: int


class EventTypeCount(BaseModel):
    """An event type that occurs."""

    event_type: str
    count: int


class EventTypes(BaseModel):
    """Every event type that occurs."""

    event_types: list[EventTypeCount]


class SuppressionHour(BaseModel):
    """How many events of an hour have a reason, by the filter that is recorded and by type."""

    hour: str
    suppression_reason: Literal["inorganic", "inorganic_grouped", "metadata_filter"] | None
    filter_id: str | None
    event_type: str
    count: int


class SuppressionSummary(BaseModel):
    """By hour, newest first; organic events have no reason and no filter."""

    hours: list[SuppressionHour]


class EventIds(BaseModel):
    """The events to delete."""

    event_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_DELETED)]


class Deleted(BaseModel):
    """How many events became tombstones."""

    deleted: int


EXAMPLE: Mapping[str, Any] = {
    "id": "evt-123",
    "lead_id": "ld_456",
    "event_type": "Page View",
    "metadata": {"path": "/pricing", "referrer": "https://google.com"},
    "suppression_reason": None,
    "original_lead_id": None,
    "created_at": "2025-01-15T10:30:00Z",
}
_PAGE = {"events": [EXAMPLE], "total": 150, "page": 1, "limit": 25}


@router.get("/events", **documented(EventPage, _PAGE, errors=(400,)))
async def list_events(
    serving: Serving,
    reader: EventsReader,
    asked: Annotated[Asked, Depends(Asked)],
    lead_id: Annotated[str, Query(description="A merged-away lead means its survivor.")] = "",
) -> Response:
    """Events of the org unit, newest first."""
    wanted = chosen(asked, reader.org_unit, serving.clock())
    if wanted is None or not _can_be_an_id(lead_id or "-"):
        return _page(asked, listing.Page([], 0))
    if not lead_id:
        return _page(asked, await listing.events(serving.postgres, wanted, asked.page, asked.limit))
    found = await listing.of_lead(serving.postgres, wanted, lead_id, asked.page, asked.limit)
    return _page(asked, found or listing.Page([], 0))


@router.get(f"/events/{LEAD}", **documented(EventPage, _PAGE, errors=(400, 404)))
async def list_events_of_a_lead(
    serving: Serving,
    reader: EventsReader,
    lead_id: Annotated[
        str, Path(description="Any characters; a merged-away lead means its survivor.")
    ],
    asked: Annotated[Asked, Depends(Asked)],
) -> Response:
    """Events of a lead, newest first; 404 where it has none that is not deleted, whatever is asked of them."""
    wanted = chosen(asked, reader.org_unit, serving.clock())
    everything = listing.Chosen(reader.org_unit)
    found = None
    if _can_be_an_id(lead_id):
        found = await listing.of_lead(
            serving.postgres, wanted or everything, lead_id, asked.page, asked.limit
        )
    if found is None:
        raise Refused(404, "The lead has no events")
    return _page(asked, found if wanted else listing.Page([], 0))


@router.delete(
    "/events/batch",
    **documented(
        Deleted,
        {"deleted": 3},
        errors=(400, 413, 415),
        body=EventIds,
        body_example={"event_ids": ["evt-123", "evt-124", "evt-125"]},
    ),
)
async def delete_events(request: Request, serving: Serving, deleter: EventsDeleter) -> Response:
    """Deletes events for good: their metadata goes, their ids stay taken.  Unknown ids are ignored."""
    ids = await bodies.judged(await bodies.read(request), _event_ids)
    known = [event_id for event_id in ids if _can_be_an_id(event_id)]
    deleted = await listing.delete(serving.postgres, deleter.org_unit, known, deleter.name)
    return json({"deleted": deleted})


@router.get(
    "/event-types",
    **documented(EventTypes, {"event_types": [{"event_type": "Page View", "count": 150}]}),
)
async def list_event_types(serving: Serving, reader: EventsReader) -> Response:
    """Every event type that occurs, with how many events there are."""
    rows = await listing.event_types(serving.postgres, reader.org_unit)
    return json({"event_types": [dict(row) for row in rows]})


@router.get(
    "/suppression/summary",
    **documented(
        SuppressionSummary,
        {
            "hours": [
                {
                    "hour": "2025-01-15T10:00:00Z",
                    "suppression_reason": "inorganic",
                    "filter_id": "vf-10",
                    "event_type": "Page View",
                    "count": 12,
                }
            ]
        },
        errors=(400,),
    ),
)
async def summarise_suppression(
    serving: Serving,
    reader: EventsReader,
    asked: Annotated[Choice, Depends(Choice)],
) -> Response:
    """Hourly counts by reason, filter and type, in the hours that a range touches (default: the last 7 days)."""
    ranged = asked if asked.range else asked.model_copy(update={"range": "last_7d"})
    wanted = chosen(ranged, reader.org_unit, serving.clock())
    if wanted is None or wanted.since is None:
        return json({"hours": []})
    after = (wanted.until or serving.clock() + 366 * 24 * HOUR_MS) // HOUR_MS
    rows = await listing.suppression(
        serving.postgres, reader.org_unit, wanted.since // HOUR_MS, after
    )
    hours = [_hour(row) for row in rows if _is_chosen(row, wanted)]
    return json({"hours": hours})


def _is_chosen(row: Any, wanted: listing.Chosen) -> bool:
    named = wanted.event_type in ("", row["event_type"])
    return named and bool(wanted.reasons >> row["reason"] & 1)


def _hour(row: Any) -> Mapping[str, Any]:
    return {
        "hour": time_text(row["hour"] * HOUR_MS),
        "suppression_reason": listing.REASONS[row["reason"]] if row["reason"] else None,
        "filter_id": row["filter_id"] or None,
        "event_type": row["event_type"],
        "count": row["count"],
    }


def _page(asked: Asked, found: listing.Page) -> Response:
    return json(
        {
            "events": [listed(row) for row in found.rows],
            "total": found.total,
            "page": asked.page,
            "limit": asked.limit,
        }
    )


def listed(row: Any) -> Mapping[str, Any]:
    """An event as listings show it."""
    return {
        "id": row["id"],
        "lead_id": row["lead_id"],
        "event_type": row["event_type"],
        "metadata": row["metadata"],
        "suppression_reason": row["suppression_reason"],
        "original_lead_id": row["original_lead_id"],
        "created_at": time_text(row["occurred_at"]),
    }


def _can_be_an_id(text: str) -> bool:
    return 0 < len(text) <= LONGEST_ID and not unstorable(text)


def _event_ids(body: bytes) -> list[str]:
    try:
        decoded = bodies.decoded(body)
    except Refused as refused:
        raise Refused(400, f"{_BAD_IDS}: {refused.message}") from None
    ids = decoded.get("event_ids") if isinstance(decoded, dict) else None
    if not isinstance(ids, list) or not ids:
        raise Refused(400, _BAD_IDS)
    if len(ids) > MOST_DELETED:
        raise Refused(400, f"{_BAD_IDS}: at most {MOST_DELETED}")
    return [_event_id(place, one) for place, one in enumerate(ids)]


def _event_id(place: int, one: object) -> str:
    if not isinstance(one, str):
        raise Refused(400, f"{_BAD_IDS}: event_ids[{place}] is not a string")
    return one
