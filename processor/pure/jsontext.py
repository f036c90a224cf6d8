"""JSON text to values, slowly and exactly: what the fast decoder refuses or might read differently is read here.

Numbers that cannot be kept (integers beyond 64 bits, decimals beyond a double, NaN and Infinity) are read as a float that is not
finite, and lone surrogates stay in their strings, so that a field nobody keeps may hold them.
"""

import json
import math
import re
from array import array
from itertools import accumulate

from processor.pure.faults import Fault
from processor.pure.types import Json

LARGEST = 4 << 20
"""Bytes a text may have: others wait while it is looked at."""
DEEPEST = 512
"""Levels of nesting a text may have, unknown fields included: what Python's recursion limit allows from any call depth."""
BACKSLASH = ord("\\")
"""Looked for as a number: as bytes it takes several times as long."""
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1

_LONGEST_INTEGER = 20
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", array("b", [1, 1, -1, -1]).tobytes())
_NO_STEPS = bytes(set(range(256)) - set(b"[{]}"))

NO_VALUE = Fault("parse", "no_value", "The message has no value.")
_TOO_LARGE = Fault("parse", "too_large", f"The value has more than {LARGEST >> 20} MB.")
_NOT_UTF8 = Fault("parse", "not_utf8", "The value is not UTF-8 text.")
_NOT_JSON = Fault("parse", "not_json", "The value is not JSON.")
_TOO_DEEP = Fault("parse", "nested_too_deep", f"The value is nested deeper than {DEEPEST} levels.")


def decode(value: bytes, deepest: int = DEEPEST) -> "Json | Fault":
    """The value of a JSON text; of duplicate keys the last wins."""
    if len(value) > LARGEST:
        return _TOO_LARGE
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _NOT_UTF8
    if excessive(value, deepest):
        return _TOO_DEEP
    try:
        decoded: Json = json.loads(text, parse_int=_integer)
    except RecursionError:  # only from a call stack that is nearly used up
        return _TOO_DEEP
    except ValueError:
        return _NOT_JSON
    return decoded


def excessive(value: bytes, deepest: int = DEEPEST) -> bool:
    """Whether the text is larger than `LARGEST` or has more levels than `deepest`; cheap for texts that cannot."""
    if len(value) <= 2 * deepest:
        return False
    if len(value) > LARGEST:
        return True
    if value.count(b"[") + value.count(b"{") <= deepest:
        return False
    # Mark by mark in Python takes ten times as long.
    steps = array("b", _STRINGS.sub(b"", value).translate(_STEPS, _NO_STEPS))
    return max(accumulate(steps), default=0) > deepest


def numerous(value: bytes, most: int) -> bool:
    """Whether the text has more commas and opening brackets than `most`: no more values than one more than these."""
    return _marks(value) > most and _marks(_STRINGS.sub(b"", value)) > most


def _marks(value: bytes) -> int:
    return value.count(b",") + value.count(b"[") + value.count(b"{")


def size(value: Json) -> tuple[int, int]:
    """How many levels of objects and arrays a value has, and how many keys in all."""
    levels, keys = 0, 0
    inner: list[Json] = [value]
    while containers := [one for one in inner if isinstance(one, dict | list)]:
        levels += 1
        keys += sum(len(one) for one in containers if isinstance(one, dict))
        inner = [
            child
            for one in containers
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return levels, keys


def _integer(digits: str) -> int | float:
    if len(digits) > _LONGEST_INTEGER:
        return math.inf
    value = int(digits)
    return value if SMALLEST_INTEGER <= value <= LARGEST_INTEGER else math.inf
