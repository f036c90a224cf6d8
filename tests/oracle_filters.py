"""Filters as the oracle holds them: documents like the YAML of ``filters apply``, with the versions they get."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from tests.oracle_conditions import satisfies
from tests.oracle_parse import normalise

WindowKey: TypeAlias = tuple[str, str, int, int, bool]


@dataclass(frozen=True)
class Velocity:
    """At most ``threshold`` events of a type within ``window_ms``."""

    id: str
    name: str
    event_type: str
    threshold: int
    window_ms: int
    keep_first: bool = False
    enabled: bool = True
    version: int = 1

    @property
    def window_key(self) -> WindowKey:
        """What the filter's bursts depend on: a new name does not start them afresh."""
        return self.id, self.event_type, self.threshold, self.window_ms, self.keep_first


@dataclass(frozen=True)
class Attribute:
    """All conditions on the metadata must hold."""

    id: str
    name: str
    conditions: tuple[Mapping[str, Any], ...]
    event_type: str = ""
    enabled: bool = True
    version: int = 1

    def matches(self, event_type: str, metadata: Mapping[str, Any]) -> bool:
        """Does it watch the type, and do all conditions hold?"""
        if self.event_type not in ("", event_type):
            return False
        return all(satisfies(condition, metadata) for condition in self.conditions)


Filter: TypeAlias = Velocity | Attribute
Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class FilterBook:
    """Every filter by org unit and id; ``latest`` remembers the versions of deleted ones."""

    filters: Mapping[Key, Filter] = field(default_factory=dict)
    latest: Mapping[Key, int] = field(default_factory=dict)

    def apply(self, document: Mapping[str, Any]) -> "FilterBook":
        """The book after a document, declarative for each org unit it names."""
        filters = {k: f for k, f in self.filters.items() if k[0] not in document["org_units"]}
        latest = dict(self.latest)
        for org_unit, kinds in document["org_units"].items():
            for wanted in _filters(kinds):
                key = org_unit, wanted.id
                kept = self._unchanged(key, wanted)
                filters[key] = kept or replace(wanted, version=latest.get(key, 0) + 1)
                latest[key] = filters[key].version
        return FilterBook(filters, latest)

    def _unchanged(self, key: Key, wanted: Filter) -> Filter | None:
        old = self.filters.get(key)
        if old is not None and replace(old, version=1) == replace(wanted, version=1):
            return old
        return None

    def watching(self, org_unit: str, event_type: str) -> list[Velocity]:
        """Enabled velocity filters of a type, smallest id (by bytes) first."""
        return [
            f
            for f in self._enabled(org_unit)
            if isinstance(f, Velocity) and f.event_type == event_type
        ]

    def matching(
        self, org_unit: str, event_type: str, metadata: Mapping[str, Any]
    ) -> Attribute | None:
        """The enabled attribute filter of smallest id that matches."""
        for f in self._enabled(org_unit):
            if isinstance(f, Attribute) and f.matches(event_type, metadata):
                return f
        return None

    def _enabled(self, org_unit: str) -> list[Filter]:
        mine = [f for (unit, _), f in self.filters.items() if unit == org_unit and f.enabled]
        return sorted(mine, key=lambda f: f.id.encode())


def _filters(kinds: Mapping[str, Any]) -> list[Filter]:
    found: list[Filter] = [
        Velocity(**{**given, "event_type": normalise(given["event_type"])})
        for given in kinds.get("velocity_filters") or []
    ]
    for given in kinds.get("metadata_filters") or []:
        conditions = tuple(dict(c) for c in given["conditions"])
        event_type = normalise(given.get("event_type") or "")
        found.append(Attribute(**{**given, "event_type": event_type, "conditions": conditions}))
    return found
