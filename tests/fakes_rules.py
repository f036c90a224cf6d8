"""Rules made of filter documents as YAML has them, the way a change of filters makes them."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from msgspec.structs import replace
from pydantic import TypeAdapter

from processor.pure.attributes import compile_conditions
from processor.pure.types import AttributeFilter, OrgRules, Rules, VelocityFilter
from schemas import Condition
from schemas.names import normalise_event_type

Document: TypeAlias = dict[str, Any]
NO_RULES = Rules(1, "velocity,metadata", {})
_CONDITIONS: TypeAdapter[tuple[Condition, ...]] = TypeAdapter(tuple[Condition, ...])


def changed(
    rules: Rules, newest: int | None, org_unit: str, documents: Iterable[Document]
) -> Rules:
    """`rules` with the filters of an org unit replaced; `newest` is the newest event time stored.

    Each velocity filter that means something new gets a revision of its own.
    """
    documents = list(documents)
    before, revision = rules.org_units.get(org_unit), rules.revision
    old = {f.id: f for filters in _velocity_of(before) for f in filters}
    watching = []
    for document in _enabled(documents, "threshold"):
        revision += 1
        made = _velocity(document, revision, newest)
        watching.append(_renewed(old[made.id], made) if made.id in old else made)
    attributes = [_attribute(document) for document in _enabled(documents, "conditions")]
    units = {**rules.org_units, org_unit: _org_rules(watching, attributes)}
    return Rules(revision + 1, rules.order, units)


def _velocity_of(rules: OrgRules | None) -> Iterable[tuple[VelocityFilter, ...]]:
    return rules.velocity.values() if rules else ()


def _enabled(documents: Iterable[Document], having: str) -> list[Document]:
    found = [d for d in documents if having in d and d.get("enabled", True)]
    return sorted(found, key=lambda document: str(document["id"]).encode())


def _velocity(document: Document, revision: int, newest: int | None) -> VelocityFilter:
    return VelocityFilter(
        id=document["id"],
        name=document["name"],
        version=1,
        event_type=normalise_event_type(document["event_type"]),
        threshold=document["threshold"],
        window_ms=document["window_ms"],
        keep_first=document.get("keep_first", False),
        revision=revision,
        newest=newest,
    )


def _renewed(old: VelocityFilter, new: VelocityFilter) -> VelocityFilter:
    """One that means the same keeps its windows, one that says the same its version."""
    kept = replace(new, version=old.version, revision=old.revision, newest=old.newest)
    if kept == old:
        return old
    same = replace(kept, name=old.name) == old
    return replace(kept if same else new, version=old.version + 1)


def _attribute(document: Document) -> AttributeFilter:
    conditions = _CONDITIONS.validate_python(tuple(document["conditions"]))
    event_type = normalise_event_type(document.get("event_type", ""))
    matches = compile_conditions(conditions)
    searches = any(condition.operator == "matches" for condition in conditions)
    return AttributeFilter(document["id"], document["name"], 1, event_type, matches, searches)


def _org_rules(watching: list[VelocityFilter], attributes: list[AttributeFilter]) -> OrgRules:
    watched = {one.event_type for one in watching}
    named = {one.event_type for one in attributes} | {""}
    return OrgRules(
        velocity={t: tuple(one for one in watching if one.event_type == t) for t in watched},
        attributes={t: tuple(a for a in attributes if a.event_type in ("", t)) for t in named},
    )
