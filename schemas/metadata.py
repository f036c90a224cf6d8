"""Metadata: any JSON object that Postgres, Kafka and every reader of JSON hold alike."""

from typing import Annotated, Any, TypeAlias

import orjson
from pydantic import BeforeValidator, Field

from schemas.values import kept_number, kept_text

LARGEST = 102_400
"""Bytes as compact UTF-8 JSON."""
DEEPEST = 32
"""Levels; metadata itself is the first, arrays are levels."""
MOST_KEYS = 1_000
"""In all, nested ones included."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def stored_metadata(value: object) -> object:
    """`value` of any size, with every zero unsigned, since Postgres has no other; raises ValueError."""
    if not isinstance(value, dict):
        return value  # a fault of its own, told by the type that follows
    kept = _kept(value, level=1)
    if _keys(kept) > MOST_KEYS:
        raise ValueError(f"metadata has more than {MOST_KEYS} keys")
    return kept


def kept_metadata(value: object) -> object:
    """`stored_metadata` of a producer; raises ValueError, also where it is too large."""
    kept = stored_metadata(value)
    if isinstance(kept, dict) and len(orjson.dumps(kept)) > LARGEST:
        raise ValueError(f"metadata has more than {LARGEST} bytes as compact JSON")
    return kept


def _kept(value: Json, level: int) -> Json:
    if isinstance(value, dict | list) and level > DEEPEST:
        raise ValueError(f"metadata is nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        return {kept_text(key): _kept(item, level + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_kept(item, level + 1) for item in value]
    if isinstance(value, float):
        return kept_number(value) + 0.0
    if isinstance(value, str):
        return kept_text(value)
    return value if value is None or isinstance(value, bool) else kept_number(value)


def _keys(value: Json) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_keys(item) for item in value.values())
    return sum(_keys(item) for item in value) if isinstance(value, list) else 0


_LIMITS = (
    f"{DEEPEST} levels, {MOST_KEYS:,} keys in all; no NUL, lone surrogate, NaN or Infinity,"
    " integers from -2^63 to 2^64-1."
)
Metadata = Annotated[
    dict[str, Any],
    BeforeValidator(kept_metadata),
    Field(description=f"At most {LARGEST:,} bytes as compact UTF-8 JSON, {_LIMITS}"),
]
StoredMetadata = Annotated[
    dict[str, Any],
    BeforeValidator(stored_metadata),
    Field(
        description=(
            f"At most {LARGEST:,} bytes as compact UTF-8 JSON where a producer sent it (events of"
            f" merges may have more), {_LIMITS}"
        )
    ),
]
