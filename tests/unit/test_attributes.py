"""Conditions of attribute filters, operator by operator (S7)."""

from typing import Any

import pytest

from tests.unit.conditions import meets, satisfies

POSITIVE = {
    "equals": "a",
    "contains": "a",
    "starts_with": "a",
    "ends_with": "a",
    "in": ["a"],
    "gt": 1,
    "lt": 1,
    "matches": "a",
    "in_cidr": "0.0.0.0/0",
}
"""Every operator that a missing key fails, but ``exists``, with a value it takes."""


def test_all_conditions_must_match() -> None:
    """One that does not is enough to spare the event."""
    first, second = ("a", "equals", "1"), ("b", "equals", "2")
    assert meets({"a": "1", "b": "2"}, first, second)
    assert not meets({"a": "1", "b": "3"}, first, second)
    assert not meets({"a": "0", "b": "2"}, first, second)


@pytest.mark.parametrize(
    ("metadata", "key", "found"),
    [
        ({"a": "x"}, "a", True),
        ({"a": {"b": "x"}}, "a.b", True),
        ({"a": {"b": {"c": "x"}}}, "a.b.c", True),
        ({"a.b": "x"}, "a.b", True),
        ({"a.b": "x", "a": {"b": "y"}}, "a.b", True),
        ({"a.b": "y", "a": {"b": "x"}}, "a.b", False),
        ({"a.b": None, "a": {"b": "x"}}, "a.b", False),
        ({"a.b": {"c": "x"}}, "a.b.c", False),
        ({"a": {"b.c": "x"}}, "a.b.c", False),
        ({"a": [{"b": "x"}]}, "a.b", False),
        ({"a": ["x"]}, "a.0", False),
        ({"a": "x"}, "a.b", False),
        ({"a": None}, "a.b", False),
        ({"a": {"": {"b": "x"}}}, "a..b", True),
        ({"": {"a": "x"}}, ".a", True),
        ({"a": "x"}, "A", False),
    ],
)
def test_a_literal_key_wins_and_else_dots_walk_objects(
    metadata: dict[str, Any], key: str, found: bool
) -> None:
    """Also where the literal key leads to null; keys are compared exactly."""
    assert meets(metadata, (key, "equals", "x")) is found


@pytest.mark.parametrize("operator", POSITIVE)
def test_a_missing_key_and_null_fail_every_operator_but_the_negations(operator: str) -> None:
    """Null is present for exists only."""
    for metadata in ({}, {"k": None}):
        assert not meets(metadata, ("k", operator, POSITIVE[operator]))
        assert not meets(metadata, ("k.deep", operator, POSITIVE[operator]))


@pytest.mark.parametrize("operator", ["equals", "contains"])
def test_a_negation_is_true_for_a_missing_key_and_null(operator: str) -> None:
    """It is the exact opposite."""
    for metadata in ({}, {"k": None}):
        assert meets(metadata, ("k", f"not_{operator}", "a"))


def test_null_exists_and_a_missing_key_does_not() -> None:
    """Whatever the value is."""
    values: tuple[object, ...] = (None, "", 0, False, [], {})
    for found in values:
        assert meets({"k": found}, ("k", "exists"))
        assert not meets({"k": found}, ("k", "not_exists"))
    assert meets({}, ("k", "not_exists"))
    assert not meets({}, ("k", "exists"))
    assert meets({"k": {"a": None}}, ("k.a", "exists"))
    assert meets({"k": {}}, ("k.a", "not_exists"))


@pytest.mark.parametrize(
    ("found", "value", "holds"),
    [
        ("Bot", "bOT", True),
        ("STRASSE", "straße", True),
        ("bot ", "bot", False),
        ("", "a", False),
        (5, 5, True),
        (5, 5.0, True),
        (5.0, 5, True),
        (0.1, 0.1, True),
        (9007199254740993, 9007199254740993.0, False),
        (18446744073709551615, 18446744073709551615, True),
        (18446744073709551615, 18446744073709551614, False),
        (5, "5", True),
        ("5", 5, True),
        ("5.0", 5, False),
        (5.0, "5", False),
        (5.0, "5.0", True),
        (1e22, "1E+22", True),
        (True, "true", True),
        (True, "TRUE", True),
        ("True", True, True),
        (True, True, True),
        (True, False, False),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (False, "false", True),
        ([], "a", False),
        (["b", "A"], "a", True),
        ([1, 2.0], 2, True),
        ([True], 1, False),
        ([None], "null", False),
        ([["a"]], "a", False),
        ([{"a": "a"}], "a", False),
        ({"a": "a"}, "a", False),
        ({}, "{}", False),
    ],
)
def test_equals_compares_numbers_by_value_and_anything_else_by_text(
    found: object, value: object, holds: bool
) -> None:
    """An array satisfies it when some scalar element does; a list of one says the same."""
    assert satisfies(found, "equals", value) is holds
    assert satisfies(found, "in", [value]) is holds
    assert satisfies(found, "in", ["something else", -7.25, value]) is holds


def test_in_takes_an_empty_list_and_a_tuple() -> None:
    """Nothing is in an empty list."""
    assert not satisfies("a", "in", [])
    assert satisfies("a", "in", ("b", "A"))


@pytest.mark.parametrize(
    ("found", "operator", "value", "holds"),
    [
        ("GoogleBOT/2", "contains", "bot", True),
        ("Google", "contains", "bot", False),
        (12345, "contains", "234", True),
        (1.5, "contains", ".", True),
        (True, "contains", "RU", True),
        (["x", "a-bot"], "contains", "bot", True),
        (["x", {"bot": 1}, ["bot"]], "contains", "bot", False),
        ({"bot": "bot"}, "contains", "bot", False),
        ("Straße 1", "contains", "STRASSE", True),
        ("Mozilla", "starts_with", "moz", True),
        ("Mozilla", "starts_with", "zilla", False),
        (123, "starts_with", "12", True),
        (False, "starts_with", "F", True),
        (["Mozilla"], "starts_with", "moz", False),
        ({"a": "moz"}, "starts_with", "moz", False),
        ("Mozilla", "ends_with", "ZILLA", True),
        ("Mozilla", "ends_with", "moz", False),
        (123, "ends_with", "23", True),
        (["Mozilla"], "ends_with", "zilla", False),
    ],
)
def test_texts_are_searched_by_casefold(
    found: object, operator: str, value: str, holds: bool
) -> None:
    """Numbers and booleans by their JSON text; only contains looks into arrays."""
    assert satisfies(found, operator, value) is holds


@pytest.mark.parametrize(
    ("found", "bound", "order"),
    [
        (5, 4, ">"),
        (5, 5, "="),
        (5, 5.5, "<"),
        ("5", 4, ">"),
        (5, "4", ">"),
        ("10", "9", ">"),
        ("-1.5e3", 0, "<"),
        (9007199254740993, 9007199254740992.0, ">"),
        ("18446744073709551615", 18446744073709551614, ">"),
        (1, "1e999", "<"),
        ("1e999", 1, ">"),
        ("9" * 30, "9" * 31, "<"),
        ("9" * 30, "9" * 29 + "8", ">"),
        ("9" * 310, "9" * 30, ">"),
        ("-" + "9" * 310, -1e300, "<"),
        (True, 0, ""),
        (False, 1, ""),
        ("true", 0, ""),
        ("", 0, ""),
        (" 5", 0, ""),
        ("5 ", 0, ""),
        ("5\n", 0, ""),
        ("+5", 0, ""),
        ("05", 0, ""),
        (".5", 0, ""),
        ("5.", 0, ""),
        ("0x5", 0, ""),
        ("1_0", 0, ""),
        ("\u0665", 0, ""),
        ("NaN", 0, ""),
        ("Infinity", 0, ""),
        ([5], 0, ""),
        ({"a": 5}, 0, ""),
    ],
)
def test_order_is_for_numbers_and_numeric_strings(found: object, bound: object, order: str) -> None:
    """A numeric string is a JSON number, nothing around it; booleans have no order."""
    assert satisfies(found, "gt", bound) is (order == ">")
    assert satisfies(found, "lt", bound) is (order == "<")
