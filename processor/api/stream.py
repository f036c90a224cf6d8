"""``GET /stream``: enriched events as they are committed, merges, and what the engagement service finds."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from processor.api.auth import EventsReader
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.services import Serving
from processor.api.stream_answer import EventStream
from processor.api.stream_client import Client
from processor.api.stream_resume import resume
from processor.pure import position
from processor.pure.frames import REASONS, Wanted, hello
from schemas import stored_name

router = APIRouter(tags=["stream"])

_SUPPRESSED = REASONS - {"none"}
_EXAMPLE = """\
: connected
retry: 2000
id: AQI2bR9kQ1cCsQjACAZKaG8BXx8EAAAA7Bq1Gw

id: AQI2bR9kQ1cCsgjACAZKaG8BXx8EAAAAS2pmqA
event: new_event
data: {"id":"evt-123","org_unit":"acme","lead_id":"ld_456","original_lead_id":null,"event_type":"Page View",\
"metadata":{"path":"/pricing"},"suppression_reason":null,"created_at":"2025-01-15T10:30:00.000Z",\
"received_at":"2025-01-15T10:30:00.214Z","suppressed_by":null}

id: AQI2bR9kQ1cCswjACAZKaG8BXx8EAAAAhZ3yMA
event: lead_merged
data: {"id":"mrg-7","lead_id":"ld_456","source_lead_ids":["ld_457"],"events_moved":12,"requested_by":"ann",\
"created_at":"2025-01-15T10:30:01.000Z"}

id: AQI2bR9kQ1cCswjACAZKaG8BXx8FAAAAyB2QXQ
event: score_update
data: {"type":"score_update","org_unit":"acme","lead_id":"ld_456","score":12,"at":"2025-01-15T10:30:02.000Z"}

: keep-alive

id: AQI2bR9kQ1cCswjACAZKaG8BXx8FAAAAyB2QXQ
event: reset
data: {"reason":"expired","message":"Some of the events since are no longer kept."}

"""
_DESCRIPTION = """\
Server-sent events of the token's org unit, from now on: whatever is committed after the answer began is sent.

- `new_event`: every enriched event, as it is published; `reasons` and `event_type` choose among these alone.
- `lead_merged`: leads became one.
- `lead_created`, `score_update`, `surge`: what the engagement service finds.
- `reset`: events were left out (`data.reason` says why: `unknown`, `foreign`, `expired`, `ahead`, `recreated`); it goes on from now.

Every event has an id.  With the last one as `Last-Event-ID` the stream goes on after it, without gap or repeat for as long as
the topics keep the events.  Events of a lead come in order.  A comment is sent every 15 s when there is nothing else; it may
come with an id alone, which is to be kept like any other.  A client that does not keep up is cut off and may come back.  The
stream ends when the token does.
"""


class Asked(BaseModel):
    """Which enriched events, and from where on."""

    model_config = ConfigDict(frozen=True)

    reasons: Annotated[
        str,
        Field(
            description="Verdicts, separated by commas: `none` (organic), `any` (suppressed),"
            " `inorganic`, `inorganic_grouped`, `metadata_filter`.",
            examples=["none,metadata_filter"],
        ),
    ] = ""
    event_type: Annotated[str, Field(description="Types in any spelling, separated by commas.")] = (
        ""
    )
    last_event_id: Annotated[
        str, Field(description="As the header `Last-Event-ID`, which wins.")
    ] = ""


def _operation() -> dict[str, Any]:
    said = documented(None, None, errors=(400,))
    said["responses"][200]["content"] = {
        "text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}
    }
    return {**said, "summary": "Events as they are committed", "description": _DESCRIPTION}


@router.get("/stream", response_class=Response, **_operation())
async def stream(
    serving: Serving,
    reader: EventsReader,
    asked: Annotated[Asked, Query()],
    last_event_id: Annotated[str, Header(alias="Last-Event-ID")] = "",
) -> Response:
    """Events as they are committed."""
    client = Client(reader, Wanted(_reasons(asked.reasons), _types(asked.event_type)))
    hub = serving.hub
    await hub.admit(client)
    since = last_event_id.strip() or asked.last_event_id.strip()
    if since:
        going_on = partial(resume, hub, client, position.decode(since))
        return EventStream(hub, client, hello(None, hub.manner.retry_ms), going_on)
    begin = hub.join(client)
    client.go_live()
    return EventStream(hub, client, hello(begin, hub.manner.retry_ms))


def _reasons(asked: str) -> frozenset[str]:
    chosen: set[str] = set()
    for reason in map(str.strip, asked.split(",") if asked else REASONS):
        if reason not in {"any", *REASONS}:
            allowed = ", ".join(["any", *sorted(REASONS)])
            raise Refused(400, f"reasons: separate by commas what you want of {allowed}")
        chosen |= _SUPPRESSED if reason == "any" else {reason}
    return frozenset(chosen)


def _types(asked: str) -> frozenset[str]:
    """A type may have a comma in its name: the whole is one of the choices."""
    types = {stored_name(one) for one in (asked, *asked.split(","))} - {""}
    if asked and not types:
        raise Refused(400, "event_type: nothing is left of it as an event type")
    return frozenset(types)
