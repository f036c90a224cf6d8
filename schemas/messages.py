"""The messages on Kafka.

A reader ignores fields it does not know: within a schema version an enriched event only ever gains some.
"""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from schemas.metadata import Json, Metadata, StoredMetadata
from schemas.names import normalise_event_type
from schemas.times import Timestamp, UtcTime, milliseconds
from schemas.values import (
    EventId,
    EventType,
    FilledText,
    FilterId,
    LeadId,
    Message,
    Name,
    OrgUnit,
    Tuple,
    or_null,
)

SCHEMA_VERSION = 1
"""Of the enriched event: the header ``schema-version``."""
SOURCES_OF_A_MERGE = 500
LARGEST = 4 << 20
"""Bytes of a message."""
NESTING = 512
"""Levels a message may have, fields that are ignored included."""
_LONGEST_INTEGER = 20

Reason = Literal["inorganic", "inorganic_grouped", "metadata_filter"]
Stage = Literal["parse", "validate", "store", "publish", "merge"]


def _named(event_type: str) -> str:
    if not normalise_event_type(event_type):
        raise ValueError("nothing is left of it as an event type")
    return event_type


def _unread_beside_a_timestamp(schema: dict[str, Any]) -> None:
    """`created_at` may be anything where `timestamp` is given."""
    created_at = {"anyOf": schema["properties"]["created_at"].pop("anyOf")}
    given = {"required": ["timestamp"], "properties": {"timestamp": {"type": "string"}}}
    schema["anyOf"] = [given, {"properties": {"created_at": created_at}}]


class RawEvent(Message):
    """What a producer sends; an optional field given as null is absent, nothing is coerced."""

    org_unit: OrgUnit
    lead_id: LeadId
    event_type: Annotated[EventType, AfterValidator(_named)]
    """Any spelling: ``page_view`` is stored as ``Page View``."""
    id: EventId | None = None
    """Without it the id is derived from topic, partition, offset and record timestamp."""
    timestamp: Timestamp | None = None
    """When it occurred; without it and `created_at` it is the record's timestamp."""
    created_at: Timestamp | None = None
    """The same under another name; `timestamp` wins."""
    metadata: Annotated[Metadata, Field(json_schema_extra=or_null)] = Field(default_factory=dict)

    model_config = ConfigDict(json_schema_extra=_unread_beside_a_timestamp)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        given = {name: value for name, value in fields.items() if value is not None}
        if "timestamp" in given:
            given.pop("created_at", None)
        return given

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Reads a message's value; raises ValueError for any bytes that are no raw event."""
        return cls.model_validate(_decode(data))

    @property
    def occurred_at(self) -> int | None:
        """Milliseconds since 1970, None where the record's timestamp counts."""
        text = self.timestamp or self.created_at
        return None if text is None else milliseconds(text)


class AttributeSuppression(Message):
    """The metadata filter that matched."""

    filter_id: FilterId
    filter_version: Annotated[int, Field(ge=1)]
    filter_name: Name


class VelocitySuppression(AttributeSuppression):
    """The velocity filter that was exceeded, as it was then."""

    count: Annotated[int, Field(ge=1)]
    """Any number from `threshold` + 1 up to the exact count."""
    threshold: Annotated[int, Field(ge=0)]
    window_ms: Annotated[int, Field(ge=1)]


class BurstSuppression(VelocitySuppression):
    """A keep-first velocity filter: the event belongs to a burst whose first event scores."""

    burst_id: EventId
    """The id of the burst's first event."""


Suppression = Annotated[
    BurstSuppression | VelocitySuppression | AttributeSuppression,
    Field(union_mode="left_to_right"),
]
"""Which filter suppressed the event; its shape follows the reason."""
_SHAPES: Mapping[Reason | None, type] = {
    None: type(None),
    "inorganic": VelocitySuppression,
    "inorganic_grouped": BurstSuppression,
    "metadata_filter": AttributeSuppression,
}


class EnrichedEvent(Message):
    """What readers get: the first committed verdict on an event."""

    id: EventId
    org_unit: OrgUnit
    lead_id: LeadId
    """The surviving lead."""
    original_lead_id: LeadId | None
    """The lead the event named, where that was merged into another."""
    event_type: FilledText
    """Title Case words."""
    metadata: StoredMetadata
    suppression_reason: Reason | None
    """Null: organic, it counts towards scores, sessions and lead creation."""
    created_at: UtcTime
    """When it occurred."""
    received_at: UtcTime
    """When its verdict was first committed."""
    suppressed_by: Suppression | None

    @model_validator(mode="after")
    def _reason_and_filter_agree(self) -> Self:
        if type(self.suppressed_by) is not _SHAPES[self.suppression_reason]:
            raise ValueError("suppressed_by does not fit suppression_reason")
        if self.original_lead_id == self.lead_id:
            raise ValueError("original_lead_id is null where it is lead_id")
        return self


class LeadMergedMetadata(Message):
    """`metadata` of the events ``Lead Merged`` and ``Lead Unmerged``."""

    source_lead_ids: Tuple[LeadId]
    """As asked, without those there was nothing to do for."""
    events_moved: Annotated[int, Field(ge=0)]
    requested_by: str | None


class MergeCommand(Message):
    """A request that leads become one, or that a merge is taken back."""

    org_unit: OrgUnit
    target_lead_id: LeadId
    source_lead_ids: Annotated[Tuple[LeadId], Field(min_length=1, max_length=SOURCES_OF_A_MERGE)]
    requested_by: Annotated[LeadId | None, Field(description="Who asked.")] = None
    kind: Annotated[Literal["merge", "unmerge"], Field(json_schema_extra=or_null)] = "merge"

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Reads a message's value; raises ValueError for any bytes that are no merge command."""
        return cls.model_validate(_decode(data))


class DeadLetter(Message):
    """A message that could not be processed, with all that is needed to replay it."""

    topic: Annotated[str, Field(min_length=1, max_length=249)]
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    timestamp: int | None
    """The record's, in milliseconds; null where it has none."""
    stage: Stage
    error: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    reason: FilledText
    """A sentence that names the field."""
    payload_base64: Annotated[str | None, Field(json_schema_extra={"contentEncoding": "base64"})]
    """Null where the message had no value, or where it is too large for the topic."""
    payload_sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """Of a payload that does not fit; else absent."""


class EngagementEvent(Message):
    """What the engagement service says about a lead."""

    type: Literal["lead_created", "score_update", "surge"]
    org_unit: OrgUnit
    lead_id: LeadId
    score: int | float
    at: UtcTime


class EnrichedHeaders(Message):
    """Record headers of an enriched event, to select by without reading the value."""

    event_id: Annotated[EventId, Field(alias="event-id")]
    org_unit: Annotated[OrgUnit, Field(alias="org-unit")]
    schema_version: Annotated[Literal["1"], Field(alias="schema-version")]
    suppression_reason: Annotated[Reason | None, Field(alias="suppression-reason")] = None
    """Absent when organic."""


class ReplayHeaders(Message):
    """Record headers of a replayed dead letter, all four or none.

    A derived id and a missing time come from them.
    """

    original_topic: Annotated[str | None, Field(alias="original-topic")] = None
    original_partition: Annotated[
        str | None, Field(alias="original-partition", pattern=r"^\d{1,10}$")
    ] = None
    original_offset: Annotated[
        str | None, Field(alias="original-offset", pattern=r"^\d{1,19}$")
    ] = None
    original_timestamp: Annotated[
        str | None, Field(alias="original-timestamp", pattern=r"^(-1|\d{1,19})$")
    ] = None
    """Milliseconds; -1 where the record had none."""


def _decode(data: bytes) -> Json:
    """JSON as Python reads it, of duplicate keys the last; raises ValueError.

    An integer of more digits than any that is kept becomes infinite, which is refused where it is kept.
    """
    if len(data) > LARGEST:
        raise ValueError("more than 4 MB")
    try:
        decoded: Json = json.loads(data.decode(), parse_int=_integer)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {NESTING} levels") from error
    if _levels(decoded) > NESTING:
        raise ValueError(f"nested deeper than {NESTING} levels")
    return decoded


def _integer(digits: str) -> int | float:
    return math.inf if len(digits) > _LONGEST_INTEGER else int(digits)


def _levels(value: Json) -> int:
    level, levels = [value], 0
    while level := [node for node in level if isinstance(node, dict | list)]:
        levels += 1
        items = [node.values() if isinstance(node, dict) else node for node in level]
        level = [item for each in items for item in each]
    return levels
