"""Events, filters and cases for the tests of deciding, in short."""

from typing import Any

from processor.pure.types import (
    AttributeFilter,
    Case,
    Event,
    Json,
    Root,
    Seen,
    VelocityFilter,
)
from tests.unit.merge_records import NO_RECORD

NOTHING = Seen(0, cached=False, from_store=False, stored=False, burst_id=None)
"""Nothing was seen."""
CALM = Seen(0, cached=False, from_store=False, stored=False, burst_id=None, calm=True)
"""Nobody looked: nothing can exceed."""


def an_event(event_id: str = "e", at: int = 0, **more: Any) -> Event:
    """A page view of lead A."""
    fields = {"org_unit": "acme", "lead_id": "A", "event_type": "Page View", **more}
    return Event(
        NO_RECORD, id=event_id, occurred_at=at, **{"metadata": {}, "metadata_json": b"{}", **fields}
    )


def a_filter(filter_id: str = "vf", revision: int = 1, **more: Any) -> VelocityFilter:
    """A velocity filter on page views: 10 ms, threshold 1."""
    fields: dict[str, Any] = {
        "name": f"Name of {filter_id}",
        "version": 7,
        "event_type": "Page View",
        "threshold": 1,
        "window_ms": 10,
        "keep_first": False,
        "newest": None,
        **more,
    }
    return VelocityFilter(id=filter_id, revision=revision, **fields)


def an_attribute(filter_id: str = "mf", event_type: str = "", key: str = "bot") -> AttributeFilter:
    """An attribute filter that matches what has the key."""

    def matches(metadata: "dict[str, Json] | Any", /) -> bool:
        return key in metadata

    return AttributeFilter(filter_id, f"Name of {filter_id}", 3, event_type, matches)


def a_case(
    event: Event,
    *watching: VelocityFilter,
    root: str | None = None,
    matched: AttributeFilter | None = None,
) -> Case:
    """The case of a counted event."""
    return Case(event, Root(root or event.lead_id, 0), matched, counted=True, watching=watching)
