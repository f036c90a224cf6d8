"""Events by HTTP instead of Kafka: what is accepted here is on the raw topic, and a worker cannot tell the difference."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from msgspec import Struct
from pydantic import BaseModel

from processor import telemetry
from processor.api import bodies
from processor.api.answers import json
from processor.api.auth import Ingester
from processor.api.documented import documented
from processor.api.errors import Refused
from processor.api.services import Services, Serving
from processor.io import idempotency
from processor.io.producing import Sending, TooLargeError
from processor.pure import ingest
from processor.pure.faults import Fault
from schemas import RawEvent

KEY = "Idempotency-Key"
_judges = ThreadPoolExecutor(1, "ingest")
_EXAMPLE = {
    "lead_id": "ld_456",
    "event_type": "page_view",
    "timestamp": "2025-01-15T10:30:00Z",
    "metadata": {"path": "/pricing", "referrer": "https://google.com"},
}

router = APIRouter(tags=["ingest"])


class Accepted(BaseModel):
    """The ids of the events, in the order they were sent."""

    ids: list[str]


class _Batch(Struct, frozen=True):
    """What a request submits, and where it goes."""

    topic: str
    org_unit: str
    events: Sequence[ingest.Submitted]
    ids: Sequence[str]
    """Its own, or new ones that nobody can guess."""
    accepted_at: int
    """Milliseconds."""

    def sendings(self, ids: Sequence[str], timestamp: int) -> list[Sending]:
        """Its records with these ids."""
        return [
            Sending(
                self.topic,
                event.lead_id.encode(),
                ingest.message(event, self.org_unit, event_id),
                timestamp,
            )
            for event, event_id in zip(self.events, ids, strict=True)
        ]


def _described() -> dict[str, Any]:
    schema = RawEvent.model_json_schema()
    schema["properties"].pop("org_unit")
    schema["required"].remove("org_unit")
    several = {"type": "array", "items": schema, "minItems": 1, "maxItems": ingest.MOST}
    examples = {
        "one": {"value": _EXAMPLE},
        "several": {"value": [{"id": "evt-123"} | _EXAMPLE, _EXAMPLE]},
    }
    content = {"schema": {"anyOf": [schema, several]}, "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


@router.post(
    "/ingest",
    **documented(
        Accepted,
        {"ids": ["evt-123", "0c3e7f1b9d5a4e628f0a6b1c2d3e4f50"]},
        status=202,
        errors=(400, 409, 413, 415),
    ),
    openapi_extra=_described(),
)
async def ingest_events(
    request: Request,
    serving: Serving,
    ingester: Ingester,
    key: Annotated[
        str | None,
        Header(
            alias=KEY,
            pattern=r"^[ -~]{1,128}$",
            description="The same key and body within 24 h: the same answer, and nothing is published again.",
        ),
    ] = None,
) -> Response:
    """One event, or an array of them, for the org unit of the token; accepted once Kafka has them on all in-sync replicas."""
    if len(request.headers.getlist(KEY)) > 1:
        raise Refused(400, f"{KEY}: must be given once")
    body = await bodies.read(request)
    if key is None:
        batch = await _judged(serving, ingester.org_unit, body)
        await _publish(serving, batch, batch.ids, batch.accepted_at)
        return _answer(batch.ids)
    named = idempotency.named(ingester.org_unit, key, body)
    return _answer(await _once(serving, named, body))


async def _once(
    serving: Services, named: idempotency.Named, body: bytes
) -> Sequence[str] | idempotency.Taken:
    known = await idempotency.known(serving.postgres, named, serving.clock())
    if known is not None:
        return known
    batch = await _judged(serving, named.org_unit, body)
    await _fit(serving, batch)
    return await idempotency.once(
        serving.postgres,
        idempotency.Claim(named, batch.ids, batch.accepted_at),
        partial(_publish, serving, batch),
    )


async def _judged(serving: Services, org_unit: str, body: bytes) -> _Batch:
    """What the body submits now; raises `Refused`."""
    accepted_at = serving.clock()
    accepting = ingest.Accepting(org_unit, accepted_at, serving.settings.max_future_ms)
    events = await bodies.judged(body, partial(ingest.read, accepting=accepting), _judges)
    if isinstance(events, Fault):
        raise Refused(413 if events.error == ingest.TOO_LARGE else 400, events.reason)
    ids = [event.id or token_hex(16) for event in events]
    return _Batch(serving.settings.raw_topic, org_unit, events, ids, accepted_at)


async def _fit(serving: Services, batch: _Batch) -> None:
    """Raises `Refused` for an event that the topic does not take, before its key is claimed."""
    try:
        await serving.producing.fits(batch.sendings(batch.ids, batch.accepted_at))
    except TooLargeError as error:
        raise _too_large(batch, error) from error


async def _publish(serving: Services, batch: _Batch, ids: Sequence[str], timestamp: int) -> None:
    """All acknowledged; raises `Refused` and `Retryable`."""
    try:
        await serving.producing.send(batch.sendings(ids, timestamp))
    except TooLargeError as error:
        raise _too_large(batch, error) from error
    telemetry.INGESTED.inc(len(ids))


def _too_large(batch: _Batch, error: TooLargeError) -> Refused:
    element = batch.events[error.number].path or "The body"
    return Refused(413, f"{element}: larger than the {error.max_bytes} bytes a message may have")


def _answer(ids: Sequence[str] | idempotency.Taken) -> Response:
    if isinstance(ids, idempotency.Taken):
        raise Refused(409, f"{KEY}: has been used for another body in the last 24 h")
    return json({"ids": ids}, 202)
