"""The rules of an event's metadata: what it may hold, how deep and how large."""

import math
import re
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import orjson
from msgspec.json import Encoder

from processor.pure.faults import refuse, unstorable
from processor.pure.jsontext import BACKSLASH, LARGEST_INTEGER, SMALLEST_INTEGER
from processor.pure.types import Json

LARGEST = 102_400
"""Bytes as compact UTF-8 JSON."""
DEEPEST = 32
"""Levels; metadata itself is the first, arrays are levels."""
MOST_KEYS = 1_000
"""Keys in all, nested ones included."""

_encode = (
    Encoder().encode
)  # of small objects without floats many times faster than orjson, and the same
_PLAIN = frozenset((str, int, bool, type(None)))
_CONTAINERS = frozenset((dict, list))
_EXACT_BELOW = 2.0**63
_SHOWN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


Checked: TypeAlias = tuple[dict[str, Json], bytes, bool]
"""Metadata, the same as compact UTF-8 JSON, and whether it is doubtful: it holds a float of 2^63 or more, which the fast decoder
makes of an integer beyond 64 bits as well."""


def check(value: object) -> Checked:
    """The metadata of a decoded message, with every zero unsigned; null is absent; raises `Refused`."""
    if value is None:
        return {}, b"{}", False
    if type(value) is not dict:
        refuse("wrong_type", "metadata must be an object.")
    # Of integers here decoders see to it that they have 64 bits.
    if len(value) <= MOST_KEYS and _PLAIN.issuperset(map(type, value.values())):
        return value, _compact(value, _encode), False
    floats = _floats(value)
    if not all(map(math.isfinite, floats)):
        refuse("bad_number", f"{_where(value, _unkept)} is not a number that can be kept.")
    # Postgres knows no negative zero, and message and row must have the same text.
    kept = {key: _unsigned(item) for key, item in value.items()} if 0.0 in floats else value
    doubtful = any(abs(number) >= _EXACT_BELOW for number in floats)
    return kept, _compact(kept, orjson.dumps if floats else _encode), doubtful


def _floats(metadata: dict[str, Json]) -> list[float]:
    """All floats, level by level, and infinity for a number that cannot be kept; raises `Refused` for too many levels or keys."""
    level: list[Json] = [metadata]
    floats: list[float] = []
    depth = keys = 0
    while level:
        depth += 1
        keys += sum(len(node) for node in level if type(node) is dict)
        if depth > DEEPEST:
            refuse("metadata_too_deep", f"metadata is nested deeper than {DEEPEST} levels.")
        if keys > MOST_KEYS:
            refuse("too_many_keys", f"metadata has more than {MOST_KEYS} keys.")
        items = [item for node in level for item in _items(node)]
        floats += [item for item in items if type(item) is float]
        floats += [math.inf for item in items if type(item) is int and not _fits(item)]
        level = [item for item in items if type(item) in _CONTAINERS]
    return floats


def _items(node: Json) -> list[Json]:
    if type(node) is dict:
        return list(node.values())
    return node if type(node) is list else []


def _unsigned(value: Json) -> Json:
    if type(value) is float:
        return value + 0.0
    if type(value) is dict:
        return {key: _unsigned(item) for key, item in value.items()}
    return [_unsigned(item) for item in value] if type(value) is list else value


def _compact(metadata: dict[str, Json], encode: Callable[[object], bytes]) -> bytes:
    """Compact UTF-8 JSON; raises `Refused` where it is too large or a text cannot be stored."""
    try:
        compact = encode(metadata)
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        refuse("bad_text", f"{_where(metadata, _unstored)} holds a lone surrogate.")
    # The six characters \\u0000 may also follow an escaped backslash: they are only a hint.
    if (
        BACKSLASH in compact
        and b"\\u0000" in compact
        and (path := _where(metadata, _unstored)) is not None
    ):
        refuse("bad_text", f"{path} holds NUL.")
    if len(compact) > LARGEST:
        refuse("metadata_too_large", f"metadata has more than {LARGEST} bytes as compact JSON.")
    return compact


def _where(metadata: dict[str, Json], wrong: Callable[[Json], bool]) -> str | None:
    """The path of a value or key that is wrong; a key that is no plain name is shown as ``*``."""
    waiting: deque[tuple[str, Json]] = deque([("metadata", metadata)])
    while waiting:
        path, value = waiting.popleft()
        if wrong(value):
            return path
        if type(value) is dict:
            for key, item in value.items():
                below = f"{path}.{key if _SHOWN_KEY.fullmatch(key) else '*'}"
                waiting += ((below, key), (below, item))
        elif type(value) is list:
            waiting += ((f"{path}[{place}]", item) for place, item in enumerate(value))
    return None


def _fits(integer: int) -> bool:
    return SMALLEST_INTEGER <= integer <= LARGEST_INTEGER


def _unkept(value: Json) -> bool:
    return (type(value) is float and not math.isfinite(value)) or (
        type(value) is int and not _fits(value)
    )


def _unstored(value: Json) -> bool:
    return type(value) is str and unstorable(value)
