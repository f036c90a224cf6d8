"""The operators with values of their own, patterns and networks (S7), and the values that none takes."""

import pytest

from processor.pure.attributes import compile_conditions
from tests.unit.conditions import Condition, satisfies


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
