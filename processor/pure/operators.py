"""The operators of attribute filters, each compiled once to a test of what a key leads to.

Text compares by casefold; the text of a number is its shortest JSON form, of a boolean ``true`` or ``false``.  Objects, nested arrays
and null satisfy nothing.  A string is numeric when it is a JSON number.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias

import orjson
import re2

from processor.pure.networks import within

MISSING: Final = object()
"""What a key leads to where metadata does not have it."""
Scalar: TypeAlias = str | int | float
"""Booleans included, which are integers to Python."""
Test: TypeAlias = Callable[[object], bool]

LONGEST_LIST = 1_000
LONGEST_PATTERN = 1_000
PATTERN_MEMORY = 1 << 20
"""Bytes for a compiled pattern and its caches."""

_LONG = 1_000
"""Characters from which on folding a text costs more than finding it folded."""
_FOLDED = 32
_SCALARS = (str, int, float)
_NUMBERS = frozenset((int, float))
_NUMERIC = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOST_DIGITS = 300  # reading whole numbers exactly takes quadratic time


def compile_operator(operator: str, value: object) -> Test:
    """The test of an operator with its value; raises ValueError for an unknown operator or a value it does not take."""
    compiler = _COMPILERS.get(operator)
    if compiler is None:
        raise ValueError(f"there is no operator {operator}")
    return compiler(value)


def _equals(value: object) -> Test:
    return _same([_scalar(value)])


def _in(value: object) -> Test:
    return _same([_scalar(item) for item in _listed(value)])


def _contains(value: object) -> Test:
    wanted = _filled(value).casefold()
    return _by_text(lambda text: wanted in text, _some)


def _starts_with(value: object) -> Test:
    wanted = _filled(value).casefold()
    return _by_text(lambda text: text.startswith(wanted), _alone)


def _ends_with(value: object) -> Test:
    wanted = _filled(value).casefold()
    return _by_text(lambda text: text.endswith(wanted), _alone)


def _exists(value: object) -> Test:
    if value is not None:
        raise ValueError("takes no value")
    return lambda found: found is not MISSING


def _gt(value: object) -> Test:
    bound = _bound(value)
    return _alone(lambda scalar: (number := _number(scalar)) is not None and number > bound)


def _lt(value: object) -> Test:
    bound = _bound(value)
    return _alone(lambda scalar: (number := _number(scalar)) is not None and number < bound)


def _matches(value: object) -> Test:
    pattern = _filled(value)
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"takes a pattern of at most {LONGEST_PATTERN} characters")
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = PATTERN_MEMORY
    options.never_capture = True  # only whether it matches counts
    try:
        search = re2.compile(pattern, options).search
    except re2.error as error:
        # RE2 says why in bytes.
        reason = error.args[0].decode(errors="replace")
        raise ValueError(f"takes an RE2 pattern, but {reason}") from error
    # Given bytes, the wrapper does not count code points.
    return _alone(lambda scalar: search(_text(scalar).encode()) is not None)


def _in_cidr(value: object) -> Test:
    networks = [value] if isinstance(value, str) else _listed(value)
    contains = within([_filled(network) for network in networks])
    return _alone(lambda scalar: type(scalar) is str and contains(scalar))


def _negated(compiler: Callable[[object], Test]) -> Callable[[object], Test]:
    def compiled(value: object) -> Test:
        test = compiler(value)
        return lambda found: not test(found)

    return compiled


_COMPILERS: Mapping[str, Callable[[object], Test]] = {
    "equals": _equals,
    "not_equals": _negated(_equals),
    "contains": _contains,
    "not_contains": _negated(_contains),
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "exists": _exists,
    "not_exists": _negated(_exists),
    "in": _in,
    "gt": _gt,
    "lt": _lt,
    "matches": _matches,
    "in_cidr": _in_cidr,
}


def _alone(test: Callable[[Scalar], bool]) -> Test:
    """Only a scalar satisfies it."""
    return lambda found: isinstance(found, _SCALARS) and test(found)


def _some(test: Callable[[Scalar], bool]) -> Test:
    """A scalar satisfies it, and an array of which some scalar element does."""

    def satisfied(found: object) -> bool:
        if isinstance(found, list):
            return any(isinstance(item, _SCALARS) and test(item) for item in found)
        return isinstance(found, _SCALARS) and test(found)

    return satisfied


def _by_text(
    test: Callable[[str], bool], among: Callable[[Callable[[Scalar], bool]], Test]
) -> Test:
    """Scalars by their folded text."""
    of_any = among(lambda scalar: test(_folded(scalar)))

    def satisfied(found: object) -> bool:
        if type(found) is str and len(found) < _LONG:  # as nearly always: fewer calls
            return test(found.casefold())
        return of_any(found)

    return satisfied


def _same(wanted: Sequence[Scalar]) -> Test:
    """Two numbers by value, anything else by text; an array by any of its elements."""
    texts = frozenset(map(_folded, wanted))
    numbers = frozenset(value for value in wanted if type(value) in _NUMBERS)
    if not numbers:
        return _by_text(texts.__contains__, _some)
    # Numbers of the same text have the same value, so the text may be asked for numbers too.
    return _some(
        lambda scalar: _folded(scalar) in texts or (type(scalar) in _NUMBERS and scalar in numbers)
    )


def _folded(scalar: Scalar) -> str:
    if type(scalar) is not str:
        return _text(scalar)
    return scalar.casefold() if len(scalar) < _LONG else _folded_once(scalar)


@lru_cache(_FOLDED)
def _folded_once(text: str) -> str:
    """Many conditions look at the same text."""
    return text.casefold()


def _text(scalar: Scalar) -> str:
    return scalar if type(scalar) is str else orjson.dumps(scalar).decode()


def _number(scalar: object) -> int | float | None:
    """The number a scalar stands for."""
    if type(scalar) is int or type(scalar) is float:
        return scalar
    numeric = _NUMERIC.fullmatch(scalar) if type(scalar) is str else None
    if numeric is None:
        return None
    digits = numeric.group()
    whole = numeric.group(1) is None and numeric.group(2) is None
    return int(digits) if whole and len(digits) <= _MOST_DIGITS else float(digits)


def _bound(value: object) -> int | float:
    bound = _number(value)
    if bound is None:
        raise ValueError("takes a number or a numeric string")
    return bound


def _filled(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("takes a non-empty text")
    return value


def _scalar(value: object) -> Scalar:
    if isinstance(value, int | float):
        return value
    return _filled(value)


def _listed(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple) or len(value) > LONGEST_LIST:
        raise ValueError(f"takes a list of at most {LONGEST_LIST}")
    return value
