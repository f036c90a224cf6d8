"""Everything that crosses a boundary, as pydantic models.  Imports nothing else of ours.

=================  =============================================================================
`messages`         what is on Kafka: `RawEvent`, `MergeCommand`, `EnrichedEvent`, `DeadLetter`, `EngagementEvent`, and record headers
`filters`          what suppresses: `VelocityFilter`, `MetadataFilter`, `Condition`, and `FilterFile`, the YAML of ``filters apply``
`rows`             what others may read in Postgres: `EventRow`, `LeadRedirectRow`
`mistakes`         how a mistake in what a person wrote is put
`names`, `times`,
`metadata`,
`values`           the values these are made of, each with its limits
=================  =============================================================================

The models are strict (a number in quotes is a text), frozen, and count lengths in code points.  Messages and rows ignore fields they
do not know, so that both sides can be upgraded in any order; what a person writes refuses them, so that a typo is named.

``python -m schemas`` writes a JSON Schema of each to ``generated/`` and all topics to ``asyncapi.json``; a test fails when these are
stale, and another when an enriched event changes other than by new fields within a `SCHEMA_VERSION`.  JSON Schema cannot say everything:
the size of metadata, its depth and its keys in all are in its description, and the models decide.

The worker decodes events with a faster reader of its own, which a test holds to `RawEvent.from_json`.
"""

from schemas.filters import (
    HEAVIEST_CONDITIONS,
    LARGEST_CONDITIONS,
    Condition,
    FilterFile,
    MetadataDefinition,
    MetadataFilter,
    OrgFilters,
    VelocityDefinition,
    VelocityFilter,
)
from schemas.messages import (
    SCHEMA_VERSION,
    AttributeSuppression,
    BurstSuppression,
    DeadLetter,
    EngagementEvent,
    EnrichedEvent,
    EnrichedHeaders,
    LeadMergedMetadata,
    MergeCommand,
    RawEvent,
    ReplayHeaders,
    VelocitySuppression,
)
from schemas.names import normalise_event_type, spelling, stored_name
from schemas.rows import EventRow, LeadRedirectRow

__all__ = [
    "HEAVIEST_CONDITIONS",
    "LARGEST_CONDITIONS",
    "SCHEMA_VERSION",
    "AttributeSuppression",
    "BurstSuppression",
    "Condition",
    "DeadLetter",
    "EngagementEvent",
    "EnrichedEvent",
    "EnrichedHeaders",
    "EventRow",
    "FilterFile",
    "LeadMergedMetadata",
    "LeadRedirectRow",
    "MergeCommand",
    "MetadataDefinition",
    "MetadataFilter",
    "OrgFilters",
    "RawEvent",
    "ReplayHeaders",
    "VelocityDefinition",
    "VelocityFilter",
    "VelocitySuppression",
    "normalise_event_type",
    "spelling",
    "stored_name",
]
