"""One good example of each message, for the generated documents and whoever tries things out."""

from collections.abc import Mapping
from typing import Any

_EVENT: Mapping[str, Any] = {
    "id": "ev-1",
    "org_unit": "acme",
    "lead_id": "lead-1",
    "original_lead_id": None,
    "event_type": "Page View",
    "metadata": {"url": "/pricing", "user_agent": "Mozilla/5.0"},
    "suppression_reason": None,
    "created_at": "2024-05-01T10:00:00.000Z",
    "received_at": "2024-05-01T10:00:00.250Z",
    "suppressed_by": None,
}
_FILTER: Mapping[str, Any] = {
    "filter_id": "vf-10",
    "filter_version": 2,
    "filter_name": "Page bursts",
}
_VELOCITY: Mapping[str, Any] = {**_FILTER, "count": 4, "threshold": 3, "window_ms": 1000}

EXAMPLES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "RawEvent": (
        {"org_unit": "acme", "lead_id": "lead-1", "event_type": "page_view"},
        {
            "id": "ev-1",
            "org_unit": "acme",
            "lead_id": "lead-1",
            "event_type": "Page View",
            "timestamp": "2024-05-01T12:00:00+02:00",
            "metadata": {"url": "/pricing", "user_agent": "Mozilla/5.0"},
        },
    ),
    "MergeCommand": (
        {"org_unit": "acme", "target_lead_id": "lead-1", "source_lead_ids": ["lead-2", "lead-3"]},
    ),
    "EnrichedEvent": (
        _EVENT,
        {**_EVENT, "suppression_reason": "inorganic", "suppressed_by": _VELOCITY},
        {
            **_EVENT,
            "suppression_reason": "inorganic_grouped",
            "suppressed_by": {**_VELOCITY, "burst_id": "ev-0"},
        },
        {
            **_EVENT,
            "original_lead_id": "lead-2",
            "suppression_reason": "metadata_filter",
            "suppressed_by": {**_FILTER, "filter_id": "mf-10", "filter_name": "Bots"},
        },
    ),
    "DeadLetter": (
        {
            "topic": "events.raw",
            "partition": 0,
            "offset": 17,
            "timestamp": 1714557600000,
            "stage": "parse",
            "error": "not_json",
            "reason": "The value is not JSON.",
            "payload_base64": "eyJvcmdfdW5pdCI6",
        },
    ),
    "EngagementEvent": (
        {
            "type": "score_update",
            "org_unit": "acme",
            "lead_id": "lead-1",
            "score": 42,
            "at": "2024-05-01T10:00:01.000Z",
        },
    ),
}
