"""The rules in force, as the database last said: a snapshot that is replaced, never changed."""

import asyncio
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import orjson

from processor import telemetry
from processor.io.postgres import Postgres
from processor.pure.attributes import compile_conditions
from processor.pure.types import AttributeFilter, FilterOrder, OrgRules, Rules, VelocityFilter
from schemas.filters import as_stored


class Rulebook:
    """Holds `rules`, and reloads what changed when a lane finds them older than the database's."""

    def __init__(self, postgres: Postgres, rules: Rules) -> None:
        self._postgres = postgres
        self._rules = rules
        self._reloading = asyncio.Lock()

    @classmethod
    async def load(cls, postgres: Postgres, order: FilterOrder) -> "Rulebook":
        """Raises `Retryable` while Postgres is away."""
        rulebook = cls(postgres, Rules(revision=0, order=order, org_units={}))
        await rulebook.reload()
        return rulebook

    @property
    def rules(self) -> Rules:
        """The snapshot in hand."""
        return self._rules

    async def reload(self) -> None:
        """Fetches the org units that changed since; one reload at a time, so none goes back."""
        async with self._reloading:
            rows = await self._postgres.fetch("rules_since", self._rules.revision)
            if rows[0]["rule_revision"] < self._rules.revision:
                # A database that was restored: what is in hand may be of changes that never were.
                self._rules = Rules(revision=0, order=self._rules.order, org_units={})
                rows = await self._postgres.fetch("rules_since", 0)
            self._rules = await renewed(self._rules, rows)
            telemetry.RULES_REVISION.set(self._rules.revision)


async def renewed(rules: Rules, rows: Iterable[Any]) -> Rules:
    """`rules` with the org units of `rows` (statement ``rules_since``) replaced.

    Filters are compiled one by one beside the event loop: all the patterns of an org unit may take minutes.
    """
    org_units = dict(rules.org_units)
    revision = rules.revision
    for org_unit, group in groupby(rows, key=lambda row: row["org_unit"]):
        members = list(group)
        revision = members[0]["rule_revision"]
        org_units.pop(org_unit, None)
        if members[0]["id"] is not None:
            org_units[org_unit] = await _org_rules(members, rules.org_units.get(org_unit))
    return Rules(revision=revision, order=rules.order, org_units=org_units)


async def _org_rules(rows: list[Any], before: OrgRules | None) -> OrgRules:
    """The rules of an org unit from its rows, ascending by id."""
    compiled = _compiled(before)
    velocity: dict[str, list[VelocityFilter]] = {}
    attributes: list[AttributeFilter] = []
    for row in rows:
        if row["kind"] == "velocity":
            velocity.setdefault(row["event_type"], []).append(_velocity(row))
        else:
            known = compiled.get((row["id"], row["version"]))
            attributes.append(known if known else await asyncio.to_thread(_attribute, row))
    named = {attribute.event_type for attribute in attributes}
    return OrgRules(
        velocity={event_type: tuple(found) for event_type, found in velocity.items()},
        attributes={
            event_type: tuple(a for a in attributes if a.event_type in ("", event_type))
            for event_type in named
        },
    )


def _compiled(before: OrgRules | None) -> Mapping[tuple[str, int], AttributeFilter]:
    """Attribute filters by id and version: a version is compiled once, since it never changes."""
    kept = before.attributes.values() if before else ()
    return {(one.id, one.version): one for filters in kept for one in filters}


def _velocity(row: Any) -> VelocityFilter:
    return VelocityFilter(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        event_type=row["event_type"],
        threshold=row["threshold"],
        window_ms=row["window_ms"],
        keep_first=row["keep_first"],
        revision=row["window_revision"],
        newest=row["newest"],
    )


def _attribute(row: Any) -> AttributeFilter:
    conditions = tuple(map(as_stored, orjson.loads(row["conditions"])))
    return AttributeFilter(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        event_type=row["event_type"],
        matches=compile_conditions(conditions),
        searches=any(condition.operator == "matches" for condition in conditions),
    )
