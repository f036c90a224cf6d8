"""Filters: as a person writes them, as a file lists them, and as they are in force.

Event types are normalised as those of events are, so that ``page_view`` watches ``Page View``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.names import STORED, normalise_event_type, spelling
from schemas.values import (
    LONGEST_LIST,
    BlankEventType,
    BlankStoredType,
    EventType,
    FilledText,
    FilterId,
    Input,
    Key,
    Name,
    Networks,
    Numeric,
    OrgUnit,
    Pattern,
    Scalar,
    StoredType,
    Tuple,
    no_longer_than,
    pattern_weight,
)

MOST_CONDITIONS = 20
LARGEST_CONDITIONS = 1 << 20
"""Bytes of a filter's conditions as compact JSON."""
HEAVIEST_CONDITIONS = 4 << 20
"""Bytes of a filter's conditions as every worker holds them."""
ITEM_WEIGHT = 150
"""Bytes of an item of a list besides its text, about."""
FILTERS_OF_A_KIND = 1_000
"""At most so many velocity filters, and so many metadata filters, in an org unit."""


class Comparison(Input):
    """Two numbers compare by value, anything else by text, ignoring case."""

    key: Key
    operator: Literal["equals", "not_equals"]
    value: Scalar


class TextSearch(Input):
    """Looks for a text in the text of the value, ignoring case."""

    key: Key
    operator: Literal["contains", "not_contains", "starts_with", "ends_with"]
    value: FilledText


class Presence(Input):
    """Whether metadata has the key; null is present for these."""

    key: Key
    operator: Literal["exists", "not_exists"]
    value: None = None


class Membership(Input):
    """Whether the value `equals` one of a list."""

    key: Key
    operator: Literal["in"]
    value: Annotated[
        Tuple[Scalar],
        Field(max_length=LONGEST_LIST),
        BeforeValidator(no_longer_than(LONGEST_LIST)),
    ]


class Order(Input):
    """Numbers and numeric strings, never booleans."""

    key: Key
    operator: Literal["gt", "lt"]
    value: Numeric


class Search(Input):
    """An RE2 search, ignoring case."""

    key: Key
    operator: Literal["matches"]
    value: Pattern


class Address(Input):
    """Whether the value is an address in one of the networks; their host bits are ignored."""

    key: Key
    operator: Literal["in_cidr"]
    value: Networks


Condition = Annotated[
    Comparison | TextSearch | Presence | Membership | Order | Search | Address,
    Field(discriminator="operator"),
]
"""One condition of a metadata filter, told apart by its operator."""
_BY_OPERATOR: Mapping[str, type[Input]] = {
    operator: model
    for model in get_args(get_args(Condition)[0])
    for operator in get_args(model.model_fields["operator"].annotation)
}


def as_stored(fields: Mapping[str, Any]) -> Condition:
    """The condition of these fields, which were judged before they were stored: that is not done again."""
    value = fields.get("value")
    kept = {**fields, "value": tuple(value) if isinstance(value, list) else value}
    found: Condition = _BY_OPERATOR[fields["operator"]].model_construct(**kept)  # type: ignore[assignment]
    return found


def size(conditions: Sequence[Condition]) -> int:
    """Bytes of conditions as compact JSON."""
    texts = [one.model_dump_json(exclude_none=True).encode() for one in conditions]
    return sum(map(len, texts)) + len(texts) + 1


def weight(conditions: Sequence[Condition]) -> int:
    """Bytes that conditions take once they are compiled, about."""
    return size(conditions) + sum(map(_weight, conditions))


def _weight(condition: Condition) -> int:
    if isinstance(condition, Search):
        return pattern_weight(condition.value)
    return ITEM_WEIGHT * len(condition.value) if isinstance(condition.value, tuple) else 0


def _kept_conditions(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    if (found := size(conditions)) > LARGEST_CONDITIONS:
        raise ValueError(f"have at most {LARGEST_CONDITIONS} bytes as JSON, not {found}")
    return conditions


def _watched(event_type: str) -> str:
    normalised = normalise_event_type(event_type)
    if not normalised:
        raise ValueError(f"nothing is left of {event_type!r} as an event type")
    return normalised


def _as_sent(event_type: object) -> object:
    return spelling(event_type) if isinstance(event_type, str) else event_type


def _watched_or_every(event_type: str) -> str:
    return _watched(event_type) if event_type else ""


_AS_STORED = Field(json_schema_extra={"maxLength": STORED})
"""What schemas say of the length, since they know no normalising."""


class VelocityDefinition(Input):
    """More than `threshold` events of a type and lead within `window_ms` are suppressed."""

    id: FilterId
    name: Name
    event_type: Annotated[
        EventType, _AS_STORED, BeforeValidator(_as_sent), AfterValidator(_watched)
    ]
    """Any spelling; a type as it is stored, so as exports and answers have it, is that type."""
    threshold: Annotated[int, Field(ge=0, le=10_000)]
    window_ms: Annotated[int, Field(ge=1, le=2_592_000_000)]
    """At most 30 days."""
    keep_first: bool = False
    """The first event of a burst still scores."""
    enabled: bool = True


class MetadataDefinition(Input):
    """Events whose metadata meets every condition are suppressed."""

    id: FilterId
    name: Name
    event_type: Annotated[
        BlankEventType, _AS_STORED, BeforeValidator(_as_sent), AfterValidator(_watched_or_every)
    ] = ""
    """Empty: every type."""
    conditions: Annotated[
        Tuple[Condition],
        Field(min_length=1, max_length=MOST_CONDITIONS),
        BeforeValidator(no_longer_than(MOST_CONDITIONS)),
        AfterValidator(_kept_conditions),
    ]
    enabled: bool = True

    @cached_property
    def weight(self) -> int:
        """Bytes that its conditions take in every worker, about."""
        return weight(self.conditions)

    @model_validator(mode="after")
    def _is_not_too_heavy(self) -> Self:
        if self.weight > HEAVIEST_CONDITIONS:
            raise ValueError(
                f"its conditions take at most {HEAVIEST_CONDITIONS} bytes in memory, not {self.weight}:"
                " use fewer or simpler patterns, or shorter lists"
            )
        return self


class VelocityFilter(VelocityDefinition):
    """A velocity filter in force: `version` counts its changes."""

    event_type: StoredType
    org_unit: OrgUnit
    version: Annotated[int, Field(ge=1)]


class MetadataFilter(MetadataDefinition):
    """A metadata (attribute) filter in force: `version` counts its changes."""

    event_type: BlankStoredType = ""
    """Empty: every type."""
    org_unit: OrgUnit
    version: Annotated[int, Field(ge=1)]


_OfAKind = Field(default=(), max_length=FILTERS_OF_A_KIND)


class OrgFilters(Input):
    """Every filter of an org unit; ids are unique over both kinds."""

    velocity_filters: Annotated[Tuple[VelocityDefinition], _OfAKind]
    metadata_filters: Annotated[Tuple[MetadataDefinition], _OfAKind]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        ids = [f.id for f in self.velocity_filters] + [f.id for f in self.metadata_filters]
        twice = sorted(i for i, count in Counter(ids).items() if count > 1)
        if twice:
            raise ValueError(f"an id is unique over both kinds, but twice here: {twice[0]}")
        return self


class FilterFile(Input):
    """What ``filters apply`` reads and ``filters export`` prints: all filters of each org unit."""

    org_units: dict[OrgUnit, OrgFilters]
