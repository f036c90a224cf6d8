"""The plain values that messages, filters and rows are made of, each with its limits.

Nothing is coerced.  Lengths are in code points.  A text never holds NUL or a lone surrogate,
since Postgres stores neither; an integer never leaves what JSON readers and Postgres hold exactly.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
)
from pydantic_core import PydanticKnownError

from schemas.names import SENT, STORED

LONGEST_LIST = 1_000
PATTERN_LENGTH = 1_000
PATTERN_MEMORY = 1 << 20
INTEGERS = (-(2**63), 2**64 - 1)
"""The smallest and the largest integer that is kept."""

Item = TypeVar("Item")


class Message(BaseModel):
    """A model of a message or row: fields it does not know are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Input(BaseModel):
    """A model of what a person writes: a field it does not know is a mistake."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def kept_text(text: str) -> str:
    """`text`, where Postgres can store it; raises ValueError."""
    if "\0" in text:
        raise ValueError("NUL (U+0000) is not allowed")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("lone surrogates (U+D800 to U+DFFF) are not allowed")
    return text


def kept_number(value: int | float) -> int | float:
    """`value`, where readers of JSON hold it exactly and it is finite; raises ValueError."""
    if isinstance(value, int) and not INTEGERS[0] <= value <= INTEGERS[1]:
        raise ValueError("integers go from -2^63 to 2^64-1")
    if not math.isfinite(value):
        raise ValueError("NaN and Infinity are not allowed")
    return value


def compile_pattern(pattern: str) -> "re2._Regexp":
    """`pattern` as an RE2 search that ignores case; raises ValueError where RE2 refuses it.

    RE2 takes linear time whatever the pattern, and a compiled one at most `PATTERN_MEMORY` bytes.
    """
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    options.never_capture = (
        True  # as workers compile it: RE2 keeps one compiled form for the same options
    )
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"RE2 refuses the pattern: {reason}") from error


def pattern_weight(pattern: str) -> int:
    """Bytes that a compiled pattern takes, about, without what searches remember; one that was compiled just now is not again.

    RE2 has some 10 bytes for each of its instructions, and keeps what it read.
    """
    size: int = compile_pattern(pattern).programsize
    return 4_096 + 64 * len(pattern) + 10 * size


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _scalar(value: object) -> object:
    if isinstance(value, str) and value:
        return kept_text(value)
    if isinstance(value, int | float):
        return kept_number(value)
    raise ValueError("a text that is not empty, a number, true or false is needed")


def _numeric(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return kept_number(value)
    if isinstance(value, str) and _NUMERIC.fullmatch(value):
        return value
    raise ValueError("a number is needed")


def no_longer_than(most: int) -> Callable[[object], object]:
    """A check that a list is no longer, before any item is looked at: each that is at fault costs a kilobyte and is an error itself."""

    def checked(value: object) -> object:
        if isinstance(value, list | tuple) and len(value) > most:
            told = {"field_type": "Tuple", "max_length": most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", told)
        return value

    return checked


def _networks(value: object) -> object:
    for network in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(network, str):
            raise ValueError("a network, such as 10.0.0.0/8, or a list of them is needed")  # noqa: TRY004
        ipaddress.ip_network(kept_text(network), strict=False)  # a zone may be any text
    return value


_NUMERIC = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

Tuple = Annotated[tuple[Item, ...], Strict(strict=False)]
"""A JSON array; its items stay strict."""

_ABOUT = frozenset({"title", "description", "default"})


def or_null(schema: dict[str, Any]) -> None:
    """The schema of a value that is read from null as well, since null is absent."""
    own = {name: schema.pop(name) for name in [*schema] if name not in _ABOUT}
    schema["anyOf"] = [own, {"type": "null"}]


_KEPT = AfterValidator(kept_text)
_NO_NUL: dict[str, Any] = {"pattern": r"^[^\u0000]*$"}

FilledText = Annotated[str, Field(min_length=1, json_schema_extra=_NO_NUL), _KEPT]
OrgUnit = Annotated[str, Field(min_length=1, max_length=64, json_schema_extra=_NO_NUL), _KEPT]
LeadId = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=_NO_NUL), _KEPT]
EventId = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=_NO_NUL), _KEPT]
EventType = Annotated[str, Field(min_length=1, max_length=SENT, json_schema_extra=_NO_NUL), _KEPT]
BlankEventType = Annotated[str, Field(max_length=SENT, json_schema_extra=_NO_NUL), _KEPT]
StoredType = Annotated[
    str, Field(min_length=1, max_length=STORED, json_schema_extra=_NO_NUL), _KEPT
]
"""Normalised already."""
BlankStoredType = Annotated[str, Field(max_length=STORED, json_schema_extra=_NO_NUL), _KEPT]
Name = Annotated[str, Field(min_length=1, max_length=200, json_schema_extra=_NO_NUL), _KEPT]
Key = Annotated[str, Field(min_length=1, max_length=1_024, json_schema_extra=_NO_NUL), _KEPT]
FilterId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]

Scalar = Annotated[FilledText | bool | int | float, BeforeValidator(_scalar)]
Numeric = Annotated[
    int | float | Annotated[str, Field(json_schema_extra={"pattern": f"^{_NUMERIC.pattern}$"})],
    BeforeValidator(_numeric),
]
"""A number, or a text that is one as JSON writes it."""
Pattern = Annotated[
    str, Field(min_length=1, max_length=PATTERN_LENGTH), _KEPT, AfterValidator(_pattern)
]
Networks = Annotated[
    str | Annotated[Tuple[str], Field(max_length=LONGEST_LIST)],
    BeforeValidator(_networks),
    BeforeValidator(no_longer_than(LONGEST_LIST)),
]
