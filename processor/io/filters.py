"""Filters as they are kept: a change is one transaction, in force from its commit on.

It takes the rules lock exclusively, so it never commits between the judging of a batch and its rows.
What is stored is decided by `successor`; everything else only reads and writes.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import orjson
from msgspec import Struct, structs

from processor.failures import Failure
from processor.io.postgres import QUERIES, Connection, Postgres
from schemas import FilterFile, MetadataDefinition, VelocityDefinition

LARGEST_TOGETHER = 16 << 20
"""Bytes of the conditions of an org unit's filters, as compact JSON: a list has all of them."""
HEAVIEST_TOGETHER = 64 << 20
"""Bytes of the same once they are compiled: every worker holds all of them."""

Definition: TypeAlias = VelocityDefinition | MetadataDefinition
Kind: TypeAlias = Literal["velocity", "metadata"]
Key: TypeAlias = tuple[str, str]
"""Org unit and filter id."""
_VELOCITY = ("threshold", "window_ms", "keep_first")


class Written(Struct, frozen=True):
    """A filter as it is written: JSON values, in the order of the models."""

    kind: Kind
    fields: Mapping[str, Any]
    weight: int = 0
    """Metadata: bytes that its conditions take in every worker, about."""


Wanted: TypeAlias = Mapping[Key, Written | None]
"""What filters shall be; None: deleted."""


class TooMuch(Failure):
    """The filters of an org unit are larger together than may be; nothing is changed."""


class Stored(Struct, frozen=True):
    """A filter as its row keeps it, a deleted one too."""

    written: Written
    """It is not checked again: what was once taken can always be exported and removed."""
    version: int
    window_revision: int | None
    """Velocity: the rule revision that last changed what its windows mean."""
    newest: int | None
    """Velocity: the newest stored event time (ms) at that revision."""
    deleted: bool


class Revision(Struct, frozen=True):
    """A filter's own rule revision, and the newest stored event time (ms) when it is committed."""

    number: int
    newest: int | None


class Changes(Struct, frozen=True):
    """How many filters a change touched."""

    added: int
    changed: int
    removed: int
    unchanged: int


async def apply(postgres: Postgres, file: FilterFile, by: str) -> Changes:
    """Makes the filters of each org unit the file names exactly what it says."""
    wanted: dict[Key, Written | None] = {}
    async with postgres.transaction() as connection:
        stored = await locked(connection, file.org_units)
        wanted.update({key: None for key, old in stored.items() if not old.deleted})
        for org_unit, filters in file.org_units.items():
            wanted.update({(org_unit, new.id): written(new) for new in filters.velocity_filters})
            wanted.update({(org_unit, new.id): written(new) for new in filters.metadata_filters})
        return await change(connection, stored, wanted, by)


async def export(postgres: Postgres, org_unit: str | None) -> dict[str, Any]:
    """The filters of an org unit (named even where it has none), or of all that have some, as a `FilterFile` has them."""
    units: dict[str, list[Stored]] = {} if org_unit is None else {org_unit: []}
    for (unit, _), kept in _by_key(await postgres.fetch("filters_now", org_unit)).items():
        units.setdefault(unit, []).append(kept)
    return {"org_units": {unit: _org_filters(kept) for unit, kept in units.items()}}


async def locked(connection: Connection, org_units: Iterable[str]) -> Mapping[Key, Stored]:
    """Every filter the org units have or had; until the transaction ends nobody else changes one."""
    await connection.execute(QUERIES["lock_rules"])
    return _by_key(await connection.fetch(QUERIES["filters_ever"], list(org_units)))


async def change(
    connection: Connection, stored: Mapping[Key, Stored], wanted: Wanted, by: str
) -> Changes:
    """Writes what differs from `stored`, which is what `locked` gave in this transaction; raises `TooMuch`."""
    different = {key: new for key, new in wanted.items() if differs(stored.get(key), new)}
    if different:
        (row,) = await connection.fetch(QUERIES["next_rule_revision"], len(different))
        last, newest = row["revision"], row["newest"]
        # A number each: windows and rows know a velocity filter by its revision alone.
        own = range(last - len(different) + 1, last + 1)
        rows = [
            _row(key[0], successor(stored.get(key), new, Revision(number, newest)), last)
            for number, (key, new) in zip(own, different.items(), strict=True)
        ]
        await connection.execute(QUERIES["write_filters"], orjson.dumps(rows).decode(), by)
        await _bounded(connection, stored, different)
    return _count(stored, wanted, different)


async def _bounded(connection: Connection, stored: Mapping[Key, Stored], different: Wanted) -> None:
    """Only what is more than before: it may have been too much before there was a bound."""
    grown = {bound.name: _grown(stored, different, bound.of) for bound in _BOUNDS}
    org_units = sorted(set().union(*grown.values()))
    rows = await connection.fetch(QUERIES["conditions_together"], org_units) if org_units else ()
    for row in rows:
        for bound in _BOUNDS:
            if row["org_unit"] in grown[bound.name] and row[bound.name] > bound.most:
                raise TooMuch(
                    f"The conditions of the metadata filters of org unit {row['org_unit']} may have {bound.most} bytes {bound.where}"
                    f" together, and would have {row[bound.name]}: delete filters, or {bound.advice} of others, first"
                )


def _grown(
    stored: Mapping[Key, Stored], different: Wanted, of: Callable[[Written], int]
) -> Collection[str]:
    """The org units of whose filters there is more than before."""
    grown: Counter[str] = Counter()
    for key, new in different.items():
        old = stored.get(key)
        before = 0 if old is None or old.deleted else of(old.written)
        grown[key[0]] += (of(new) if new else 0) - before
    return {org_unit for org_unit, more in grown.items() if more > 0}


def _size(filter_: Written) -> int:
    return len(orjson.dumps(filter_.fields["conditions"])) if filter_.kind == "metadata" else 0


class _Bound(Struct, frozen=True):
    """How much the filters of an org unit may have together."""

    name: str
    """Of the column that has how much it is."""
    of: Callable[[Written], int]
    most: int
    where: str
    advice: str


_BOUNDS = (
    _Bound("bytes", _size, LARGEST_TOGETHER, "as JSON", "shorten lists and texts"),
    _Bound(
        "weight",
        lambda one: one.weight,
        HEAVIEST_TOGETHER,
        "in memory",
        "shorten lists and simplify patterns",
    ),
)


def differs(old: Stored | None, new: Written | None) -> bool:
    """Whether `new` would change anything: text decides, since 1, 1.0 and true are equal in Python."""
    if old is None or old.deleted:
        return new is not None
    return new is None or _text(new) != _text(old.written)


def successor(old: Stored | None, new: Written | None, revision: Revision) -> Stored:
    """What is stored when `old` becomes `new`, which differs.  A deletion keeps its version."""
    if new is None:
        if old is None:
            raise ValueError("a filter that never was cannot be deleted")
        return structs.replace(old, deleted=True)
    version = old.version + 1 if old else 1
    if new.kind == "metadata":
        return Stored(new, version, None, None, deleted=False)
    if old and not old.deleted and _same_windows(old.written, new):
        return Stored(new, version, old.window_revision, old.newest, deleted=False)
    return Stored(new, version, revision.number, revision.newest, deleted=False)


def _same_windows(old: Written, new: Written) -> bool:
    """Whether windows go on: they mean the same, and were kept without a gap until now."""
    return (
        old.kind == "velocity"
        and (old.fields["enabled"] or not new.fields["enabled"])
        and all(old.fields[name] == new.fields[name] for name in ("event_type", *_VELOCITY))
    )


def _count(stored: Mapping[Key, Stored], wanted: Wanted, different: Wanted) -> Changes:
    removed = sum(new is None for new in different.values())
    added = sum(
        new is not None and (key not in stored or stored[key].deleted)
        for key, new in different.items()
    )
    changed = len(different) - added - removed
    return Changes(added, changed, removed, len(wanted) - len(different))


def written(definition: Definition) -> Written:
    """A definition as its row keeps it."""
    fields = definition.model_dump(mode="json", exclude_none=True)
    if isinstance(definition, VelocityDefinition):
        return Written("velocity", fields)
    return Written("metadata", fields, definition.weight)


def _text(filter_: Written) -> tuple[Kind, bytes]:
    return filter_.kind, orjson.dumps(filter_.fields)


def _row(org_unit: str, new: Stored, revision: int) -> dict[str, Any]:
    return {
        **new.written.fields,
        "org_unit": org_unit,
        "kind": new.written.kind,
        "version": new.version,
        "revision": revision,
        "window_revision": new.window_revision,
        "newest": new.newest,
        "deleted": new.deleted,
        "definition": None if new.deleted else new.written.fields,
        "weight": new.written.weight if new.written.kind == "metadata" else None,
    }


def _by_key(rows: Iterable[Any]) -> dict[Key, Stored]:
    return {(row["org_unit"], row["id"]): from_row(row) for row in rows}


def from_row(row: Mapping[str, Any]) -> Stored:
    """A row of ``filters``, conditions as text."""
    return Stored(
        written=written_in(row),
        version=row["version"],
        window_revision=row["window_revision"],
        newest=row["newest"],
        deleted=row["deleted"],
    )


def written_in(row: Mapping[str, Any], conditions: Callable[[str], Any] = orjson.loads) -> Written:
    """What a row of ``filters`` keeps; `conditions` makes something of their JSON."""
    if row["kind"] == "velocity":
        own = {name: row[name] for name in _VELOCITY}
    else:
        own = {"conditions": conditions(row["conditions"])}
    common = {name: row[name] for name in ("id", "name", "event_type")}
    return Written(row["kind"], {**common, **own, "enabled": row["enabled"]}, row["weight"] or 0)


def _org_filters(kept: Iterable[Stored]) -> dict[str, Any]:
    found: dict[str, list[Mapping[str, Any]]] = {"velocity_filters": [], "metadata_filters": []}
    for one in kept:
        found[f"{one.written.kind}_filters"].append(one.written.fields)
    return dict(found)
