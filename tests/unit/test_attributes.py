"""Conditions of attribute filters, operator by operator (S7)."""

from typing import Any, NamedTuple

import pytest

from processor.pure.attributes import compile_conditions

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


@pytest.mark.parametrize(
    ("found", "pattern", "holds"),
    [
        ("GoogleBot/2.1", "bot/[0-9]", True),
        ("Google", "bot|crawl", False),
        ("ÉCRAN", "écran", True),
        ("a\nb", "^b", False),
        ("a\nb", "(?m)^b", True),
        ("(bot)", "(bo)(t)", True),
        (404, "^4..$", True),
        (True, "^TRUE$", True),
        (["bot"], "bot", False),
        ({"bot": "bot"}, "bot", False),
        ("a" * 50_000, "(a*)*$", True),
        ("a" * 50_000 + "b", "^(a+)+$", False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_matches_searches_with_re2_ignoring_case(found: object, pattern: str, holds: bool) -> None:
    """Linear in the text whatever the pattern."""
    assert satisfies(found, "matches", pattern) is holds


@pytest.mark.parametrize(
    ("found", "networks", "holds"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.4", "10.1.2.3", False),
        ("10.1.2.3", "0.0.0.0/0", True),
        ("10.1.2.3", ["192.168.0.0/16", "10.1.0.0/16"], True),
        ("10.1.2.3", ("192.168.0.0/16", "10.2.0.0/16"), False),
        ("10.1.2.3", [], False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:a01:203", "10.0.0.0/8", True),
        ("10.1.2.3", "::ffff:10.0.0.0/104", True),
        ("10.1.2.3", "::ffff:0:0/96", True),
        ("::ffff:10.1.2.3", "::ffff:11.0.0.0/104", False),
        ("10.1.2.3", "::/0", False),
        ("::ffff:10.1.2.3", "::/0", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("2001:db8::1", "0.0.0.0/0", False),
        ("2001:db8::1", "2001:db8::5/120", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("fe80::1%" + "e" * 99, "fe80::/10", False),
        (" 10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3/32", "10.0.0.0/8", False),
        ("10.1.2.03", "10.0.0.0/8", False),
        ("", "0.0.0.0/0", False),
        ("bot", "0.0.0.0/0", False),
        (167838211, "10.0.0.0/8", False),
        (True, "0.0.0.0/0", False),
        (["10.1.2.3"], "10.0.0.0/8", False),
        ({"ip": "10.1.2.3"}, "10.0.0.0/8", False),
    ],
)
def test_an_address_lies_in_a_network_whatever_its_host_bits(
    found: object, networks: object, holds: bool
) -> None:
    """IPv4-mapped is IPv4, on both sides; only a string is an address."""
    assert satisfies(found, "in_cidr", networks) is holds


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("like", "a"),
        ("equals", ""),
        ("equals", None),
        ("not_equals", ["a"]),
        ("contains", 5),
        ("not_contains", ""),
        ("starts_with", True),
        ("ends_with", None),
        ("exists", "a"),
        ("not_exists", False),
        ("in", "a"),
        ("in", [None]),
        ("in", ["a"] * 1_001),
        ("gt", True),
        ("gt", "x"),
        ("lt", None),
        ("lt", [1]),
        ("matches", ""),
        ("matches", "("),
        ("matches", r"(a)\1"),
        ("matches", "(?=a)"),
        ("matches", "a" * 1_001),
        ("matches", "((a{100}){100}){100}"),
        ("matches", "\ud800"),
        ("in_cidr", "10.0.0.0/33"),
        ("in_cidr", "example.com"),
        ("in_cidr", ""),
        ("in_cidr", [5]),
        ("in_cidr", ["10.0.0.0/8"] * 1_001),
        ("in_cidr", 5),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_value_that_an_operator_does_not_take_is_refused_naming_the_condition(
    operator: str, value: object
) -> None:
    """Nothing is guessed when a filter is compiled."""
    with pytest.raises(ValueError, match=rf"^Condition {operator} on user\.agent: .+\.$"):
        compile_conditions([Condition("user.agent", operator, value)])


def test_a_filter_has_1_to_20_conditions() -> None:
    """Without any it would match every event."""
    condition = Condition("a", "exists")
    for count in (0, 21):
        with pytest.raises(ValueError, match="1 to 20 conditions"):
            compile_conditions([condition] * count)
    assert compile_conditions([condition] * 20)({"a": 1})
