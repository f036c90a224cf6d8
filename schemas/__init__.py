"""Everything that crosses a boundary, as pydantic models: filters.  Imports nothing else of ours."""

from schemas.filters import (
    Condition,
    FilterFile,
    MetadataDefinition,
    MetadataFilter,
    OrgFilters,
    VelocityDefinition,
    VelocityFilter,
)
from schemas.names import normalise_event_type

__all__ = [
    "Condition",
    "FilterFile",
    "MetadataDefinition",
    "MetadataFilter",
    "OrgFilters",
    "VelocityDefinition",
    "VelocityFilter",
    "normalise_event_type",
]
