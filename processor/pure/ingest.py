"""Bodies of ``POST /ingest`` to messages of the raw topic, judged by the rules and the code of `processor.pure.parse`.

A worker makes of such a message what it would make of the element itself: the event type goes on as it was given, since its normal
form may have another one, metadata as a worker stores it.
"""

from collections.abc import Sequence

import orjson
from msgspec import Struct

from processor.pure import jsontext, timestamps
from processor.pure.faults import Fault, Refused
from processor.pure.parse import in_time, judged, validate
from processor.pure.types import Json

MOST = 1_000
"""Elements of a body."""
TOO_LARGE = "metadata_too_large"
"""The error of an element whose size is what is wrong with it."""

_NO_EVENTS = Fault(
    "validate", "bad_length", f"The body must be an event or an array of 1 to {MOST} events."
)


class Accepting(Struct, frozen=True):
    """What elements are judged by besides themselves."""

    org_unit: str
    """Theirs, whatever they say."""
    accepted_at: int
    """The timestamp of their records, ms."""
    max_future_ms: int


class Submitted(Struct, frozen=True):
    """An element that passed; its message lacks nothing but an id, where it names none."""

    path: str
    """Where it is in the body: ``[3]``; empty for one that is the body."""
    id: str | None
    lead_id: str
    event_type: str
    """As it was given."""
    metadata_json: bytes
    occurred_at: int | None
    doubtful: bool


def read(body: bytes, accepting: Accepting) -> Sequence[Submitted] | Fault:
    """The events of a body, one or an array of them; the first element at fault refuses all, and is named."""
    # Within its array an element may be nested as deep as alone.
    deepest = jsontext.DEEPEST + body.lstrip().startswith(b"[")
    found = judged(body, lambda decoded: _events(decoded, accepting), _sure, deepest)
    if isinstance(found, Fault) and found.stage == "parse":
        return Fault("parse", found.error, f"The body is not valid: {found.reason}")
    return found


def message(event: Submitted, org_unit: str, event_id: str) -> bytes:
    """The value of its record: compact JSON."""
    fields = {
        "org_unit": org_unit,
        "id": event_id,
        "lead_id": event.lead_id,
        "event_type": event.event_type,
    }
    if event.occurred_at is not None:
        fields["timestamp"] = timestamps.to_text(event.occurred_at)
    return orjson.dumps(fields)[:-1] + b',"metadata":' + event.metadata_json + b"}"


def _events(decoded: Json, accepting: Accepting) -> Sequence[Submitted] | Fault:
    if type(decoded) is dict:
        only = _event("", decoded, accepting)
        return only if isinstance(only, Fault) else [only]
    if type(decoded) is not list or not 0 < len(decoded) <= MOST:
        return _NO_EVENTS
    events: list[Submitted] = []
    for place, element in enumerate(decoded):
        event = _event(f"[{place}]", element, accepting)
        if isinstance(event, Fault):
            return event
        events.append(event)
    return events


def _event(path: str, element: Json, accepting: Accepting) -> Submitted | Fault:
    if type(element) is not dict:
        return Fault("validate", "not_an_object", f"{path}: must be a JSON object.")
    fields = validate({**element, "org_unit": accepting.org_unit})
    if isinstance(fields, Fault):
        return _named(path, fields)
    if fields.occurred_at is not None:
        try:
            in_time(fields.occurred_at, accepting.accepted_at, accepting.max_future_ms)
        except Refused as refused:
            return _named(path, refused.fault)
    return Submitted(
        path,
        fields.id,
        fields.lead_id,
        str(element["event_type"]),
        fields.metadata_json,
        fields.occurred_at,
        fields.doubtful,
    )


def _named(path: str, fault: Fault) -> Fault:
    """The same with the whole path of the field, and a colon after it: a reason begins with its field."""
    field, _, said = fault.reason.partition(" ")
    place = ".".join(filter(None, (path, field)))
    return Fault("validate", fault.error, f"{place}: {said}")


def _sure(events: Sequence[Submitted] | Fault) -> bool:
    """Both decoders agree on what is an array and how long it is, though not on every number."""
    if isinstance(events, Fault):
        return events is _NO_EVENTS
    return not any(event.doubtful for event in events)
