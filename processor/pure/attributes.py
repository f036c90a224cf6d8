"""Attribute filters: the conditions a person wrote, compiled to one test of an event's metadata."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from processor.pure.operators import MISSING, Test, compile_operator
from processor.pure.types import Json, Matcher

MOST_CONDITIONS = 20


class Condition(Protocol):
    """One condition, as `schemas` has it."""

    @property
    def key(self) -> str: ...
    @property
    def operator(self) -> str: ...
    @property
    def value(self) -> object: ...


def compile_conditions(conditions: Sequence[Condition]) -> Matcher:
    """A test that metadata meets all conditions; raises ValueError with a sentence that names the condition at fault."""
    if not 0 < len(conditions) <= MOST_CONDITIONS:
        raise ValueError(f"A filter has 1 to {MOST_CONDITIONS} conditions.")
    compiled = [_compile(condition) for condition in conditions]

    def matches(metadata: Mapping[str, Json], /) -> bool:
        for key, path, test in compiled:
            found = metadata.get(key, MISSING)
            if found is MISSING and path:
                found = _walk(metadata, path)
            if not test(found):
                return False
        return True

    return matches


def _compile(condition: Condition) -> tuple[str, Sequence[str], Test]:
    """The literal key, the steps to walk where there is none, and the test."""
    key = condition.key
    try:
        test = compile_operator(condition.operator, condition.value)
    except ValueError as error:
        raise ValueError(f"Condition {condition.operator} on {key}: {error}.") from error
    return key, key.split(".") if "." in key else (), test


def _walk(metadata: Mapping[str, Json], path: Sequence[str]) -> object:
    """Where the steps lead through objects, or `MISSING`."""
    found: object = metadata
    for step in path:
        if not isinstance(found, dict) or step not in found:
            return MISSING
        found = found[step]
    return found
