"""Previews: what a filter that is not saved would do to the events of a range, as if it had always been there."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from processor.api import bodies
from processor.api.answers import json, time_text
from processor.api.auth import FiltersReader
from processor.api.definitions import MODELS, checked, definition, given, schema
from processor.api.documented import documented, taking
from processor.api.errors import RETRY_AFTER_S, Refused
from processor.api.events import EXAMPLE, ListedEvent, listed
from processor.api.filters_documented import DEFINITIONS
from processor.api.listing import DAY_MS, Choice, Range, chosen
from processor.api.services import Services, Serving
from processor.io import preview
from processor.io.kept import Kind
from processor.io.preview import Found, Scan
from processor.pure import timestamps
from processor.pure.tally import Sample

LONGEST_S = 120
_LATEST = timestamps.LATEST + 1

router = APIRouter(tags=["filters"])


class PreviewBody(BaseModel):
    """A definition of the kind, without `id` and `name` if you like, and the range of `created_at`: `range`, or `from` (included) and
    `to` (not included; left out: no end); without any, the last 7 days.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    filter: Annotated[dict[str, Any], Field(description="With the `id` of the one it replaces.")]
    since: Annotated[str, Field(alias="from", json_schema_extra={"format": "date-time"})] = ""
    until: Annotated[str, Field(alias="to", json_schema_extra={"format": "date-time"})] = ""
    range: Range | None = None


class Verdict(BaseModel):
    """What the filter says.  Velocity: at least so many events were in the window; keep-first: of which burst, null where that
    began outside of the range.
    """

    suppression_reason: Literal["inorganic", "inorganic_grouped", "metadata_filter"]
    count: int | None = None
    burst_id: str | None = None


class PreviewSample(ListedEvent):
    """An event as it is, with what the filter says."""

    would_be: Verdict


class PreviewDay(BaseModel):
    """A day (UTC) with events."""

    day: str
    events: int
    suppressed: int


class PreviewChanges(BaseModel):
    """Against what is stored: suppressed for the first time, suppressed anyway, and no longer suppressed by the filter of that id."""

    newly_suppressed: int
    already_suppressed: int
    no_longer_suppressed: int


class PreviewAnswer(BaseModel):
    """How many events (of the filter's type, in the range, not deleted) and leads it would suppress, the newest 20, what changes."""

    events: int
    suppressed: int
    leads: int
    by_day: list[PreviewDay]
    samples: list[PreviewSample]
    changes: PreviewChanges


_ANSWER: Mapping[str, Any] = {
    "events": 1500,
    "suppressed": 12,
    "leads": 2,
    "by_day": [{"day": "2025-01-15", "events": 1500, "suppressed": 12}],
    "samples": [{**EXAMPLE, "would_be": {"suppression_reason": "inorganic", "count": 4}}],
    "changes": {"newly_suppressed": 2, "already_suppressed": 10, "no_longer_suppressed": 1},
}


class _Previews:
    """Previews of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    async def preview_filter(
        self, request: Request, serving: Serving, reader: FiltersReader
    ) -> Response:
        """Runs a filter that is not saved over stored events, in their processing order.  It counts as enabled."""
        body = await bodies.model(request, PreviewBody)
        fields = {"id": "preview", "name": "Preview", **given(body.filter)}
        since, until = _bounds(body, serving.clock())

        async def goes_on() -> None:
            if serving.stopping.is_set() or await request.is_disconnected():
                raise Refused(503, "The preview was cut off", {"Retry-After": RETRY_AFTER_S})

        async with serving.previews.turn():
            await goes_on()
            wanted = await checked(partial(definition, self.kind, fields))
            replaced = wanted.id if "id" in body.filter else None
            scan = Scan(reader.org_unit, wanted, since, until, replaced)
            found = await _found(serving, scan, goes_on)
        return json(_shown(found))


async def _found(serving: Services, scan: Scan, goes_on: Callable[[], Awaitable[None]]) -> Found:
    try:
        async with asyncio.timeout(LONGEST_S):
            return await preview.run(serving.postgres, scan, goes_on)
    except TimeoutError as error:
        text = f"A preview of this range takes over {LONGEST_S} s; choose a shorter one"
        raise Refused(400, text) from error


def _bounds(body: PreviewBody, now: int) -> tuple[int, int]:
    """From and before which time (ms) events are judged; raises `Refused`."""
    if not body.since and not body.until:
        of_range = chosen(Choice(range=body.range or "last_7d"), "", now)
        assert of_range is not None  # noqa: S101 - no type is asked for
        assert of_range.since is not None  # noqa: S101 - every range begins
        return of_range.since, of_range.until or _LATEST
    if body.range is not None:
        raise Refused(400, "range: is given besides from and to")
    if not body.since:
        raise Refused(400, "from: is required with to")
    since = _time("from", body.since)
    until = _time("to", body.until) if body.until else _LATEST
    if until <= since:
        raise Refused(400, "to: is not later than from")
    return since, until


def _time(name: str, text: str) -> int:
    found = timestamps.from_text(text)
    if found is None:
        raise Refused(400, f"{name}: is not an RFC 3339 time with an offset")
    return found


def _shown(found: Found) -> dict[str, Any]:
    tally = found.tally
    return {
        "events": tally.events,
        "suppressed": tally.suppressed,
        "leads": tally.leads,
        "by_day": [
            {"day": time_text(day * DAY_MS)[:10], "events": events, "suppressed": suppressed}
            for day, events, suppressed in tally.days
        ],
        "samples": [
            {**listed(row), "would_be": _verdict(sample, row)} for sample, row in found.samples
        ],
        "changes": {
            "newly_suppressed": tally.newly,
            "already_suppressed": tally.suppressed - tally.newly,
            "no_longer_suppressed": tally.no_longer + found.elsewhere,
        },
    }


def _verdict(sample: Sample, row: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"suppression_reason": sample.reason}
    if sample.count is not None:
        said["count"] = sample.count
    if sample.burst_id is not None:
        said["burst_id"] = row["burst_id"]
    return said


def _add_route(kind: Kind) -> None:
    example = {
        "filter": {k: v for k, v in DEFINITIONS[kind].items() if k != "name"},
        "range": "last_7d",
    }
    body = PreviewBody.model_json_schema()
    body["properties"]["filter"] = schema(MODELS[kind], "id", "name")
    body["$defs"] = {**body.get("$defs", {}), **body["properties"]["filter"].pop("$defs", {})}
    router.add_api_route(
        f"/{kind}-filters/preview",
        _Previews(kind).preview_filter,
        methods=["POST"],
        **documented(PreviewAnswer, _ANSWER, errors=(400, 413, 415)),
        openapi_extra=taking(body, example),
    )


for _kind in MODELS:
    _add_route(_kind)
