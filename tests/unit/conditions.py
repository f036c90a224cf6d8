"""Conditions for the tests of attribute filters, and whether metadata meets them."""

from typing import Any, NamedTuple

from processor.pure.attributes import compile_conditions


class Condition(NamedTuple):
    """One condition of a filter."""

    key: str
    operator: str
    value: Any = None


def meets(metadata: dict[str, Any], *conditions: tuple[Any, ...]) -> bool:
    """Whether metadata meets all conditions."""
    return compile_conditions([Condition(*condition) for condition in conditions])(metadata)


def satisfies(found: object, operator: str, value: object = None) -> bool:
    """Whether a value under a key satisfies the operator; its negation always says the opposite."""
    holds = meets({"k": found}, ("k", operator, value))
    if operator in ("equals", "contains"):
        assert meets({"k": found}, ("k", f"not_{operator}", value)) is not holds
    return holds
