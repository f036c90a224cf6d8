"""What OpenAPI says of filters."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, RootModel

from processor.api.definitions import MODELS, schema
from processor.api.documented import documented, taking
from processor.io.kept import Kind
from schemas import MetadataFilter, VelocityFilter


class KeptVelocityFilter(VelocityFilter):
    """A velocity filter: more than `threshold` events of its type and a lead within `window_ms` are suppressed."""

    changed_at: str
    changed_by: str


class KeptMetadataFilter(MetadataFilter):
    """A metadata filter: events whose metadata meets every condition are suppressed."""

    changed_at: str
    changed_by: str


class KeptVelocityFilters(RootModel[list[KeptVelocityFilter]]):
    """Enabled first, then most recently changed."""


class KeptMetadataFilters(RootModel[list[KeptMetadataFilter]]):
    """Enabled first, then most recently changed."""


class FilterVersion(BaseModel):
    """What a change made of a filter; no definition: it was deleted, and had that version."""

    version: int
    changed_at: str
    changed_by: str
    deleted: bool
    definition: dict[str, Any] | None


class FilterVersions(RootModel[list[FilterVersion]]):
    """Newest first."""


class WorkerRules(BaseModel):
    """A worker seen within 30 s, and the revision of the rules it decides with."""

    id: str
    rules_revision: int
    started_at: str
    seen_at: str


class RulesInForce(BaseModel):
    """The revision of all rules in force, and the workers there are."""

    revision: int
    workers: list[WorkerRules]


_AT = "2025-01-15T10:30:00Z"
RULES = {
    "revision": 42,
    "workers": [
        {
            "id": "node-1-4711-9f86d081",
            "rules_revision": 42,
            "started_at": _AT,
            "seen_at": "2025-01-15T11:00:00.250Z",
        }
    ],
}
_ANSWERS: Mapping[Kind, tuple[type[BaseModel], type[BaseModel]]] = {
    "velocity": (KeptVelocityFilter, KeptVelocityFilters),
    "metadata": (KeptMetadataFilter, KeptMetadataFilters),
}
DEFINITIONS: Mapping[Kind, dict[str, Any]] = {
    "velocity": {
        "id": "vf-10",
        "name": "Page bursts",
        "event_type": "Page View",
        "threshold": 3,
        "window_ms": 1000,
        "keep_first": True,
        "enabled": True,
    },
    "metadata": {
        "id": "mf-10",
        "name": "Bots",
        "event_type": "",
        "conditions": [
            {"key": "user_agent", "operator": "contains", "value": "bot"},
            {"key": "net.ip", "operator": "in_cidr", "value": "10.0.0.0/8"},
        ],
        "enabled": True,
    },
}


def operations(kind: Kind) -> Mapping[str, dict[str, Any]]:
    """Keyword arguments of the routes of a kind, by handler."""
    one, many = _ANSWERS[kind]
    definition = DEFINITIONS[kind]
    unnamed = {name: value for name, value in definition.items() if name != "id"}
    example = {
        "org_unit": "acme",
        **definition,
        "version": 2,
        "changed_at": _AT,
        "changed_by": "ann",
    }
    by_whom = {"changed_at": _AT, "changed_by": "ann"}
    version = {"version": 2, **by_whom, "deleted": False, "definition": definition}
    changing = (400, 404, 409, 412, 413, 415)
    return {
        "list_filters": documented(many, [example]),
        "create_filter": _tagged(documented(one, example, status=201, errors=(400, 409, 413, 415)))
        | _taking(kind, unnamed, "id"),
        "get_filter": _tagged(documented(one, example, errors=(404,))),
        "replace_filter": _tagged(documented(one, example, errors=changing))
        | _taking(kind, unnamed, "id"),
        "change_filter": _tagged(documented(one, example, errors=changing))
        | _taking(kind, {"enabled": False}, "*"),
        "delete_filter": documented(None, None, status=204, errors=(404, 412)),
        "list_versions": documented(FilterVersions, [version], errors=(400, 404)),
    }


def _taking(kind: Kind, example: Any, *optional: str) -> dict[str, Any]:
    return {"openapi_extra": taking(schema(MODELS[kind], *optional), example)}


def _tagged(said: dict[str, Any]) -> dict[str, Any]:
    """Its success carries an `ETag`."""
    tag = {"schema": {"type": "string"}, "description": "The version, for `If-Match`."}
    said["responses"][said["status_code"]]["headers"] = {"ETag": tag}
    return said
