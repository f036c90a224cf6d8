"""Compiled conditions say what the contract says of the same condition, word by word."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from processor.pure.attributes import compile_conditions
from tests.oracle_conditions import satisfies
from tests.unit.conditions import Condition

KEYS = st.sampled_from(["a", "b", "a.b", "a.b.a", "", ".a", "b..a"])
TEXTS = st.sampled_from(
    [
        *(
            "a",
            "A",
            "bot",
            "Bot",
            "robot",
            "straße",
            "STRASSE",
            "true",
            "False",
            "null",
            "5",
            "5.0",
        ),
        *("05", "1e5", "100000.0", "-0.5", "", " 5", "10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"),
        *("1" * 25, "1" * 24 + "2", "1e999", "10.0.0.0/8", "9007199254740993", "aa.", "\u0665"),
    ]
)
# Floats whose shortest text json and orjson write alike.
NUMBERS = st.integers(-3, 6) | st.sampled_from(
    [0.5, 5.0, -0.5, 1e16, 1e22, 1e300, 100000.0, 2**63, 2**64 - 1, 9007199254740993, 2.0**53]
)
SCALARS = TEXTS | NUMBERS | st.booleans()
VALUES = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)
FILLED = TEXTS.filter(bool)
WANTED = FILLED | NUMBERS | st.booleans()
NETWORKS = st.sampled_from(
    [
        *("10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "::/0", "::ffff:0:0/96", "::ffff:10.0.0.0/104"),
        *("2001:db8::5/32", "11.0.0.0/8", "::ffff:0:0/90"),
    ]
)
BOUNDS = NUMBERS | TEXTS.filter(lambda text: text in {"5", "5.0", "1e5", "-0.5", "1e999", "1" * 25})
TAKES: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("equals", "not_equals"), WANTED),
    **dict.fromkeys(("contains", "not_contains", "starts_with", "ends_with"), FILLED),
    **dict.fromkeys(("exists", "not_exists"), st.none()),
    **dict.fromkeys(("gt", "lt"), BOUNDS),
    "in": st.lists(WANTED, max_size=3),
    "matches": st.sampled_from(["bot", "^a", "5$", "^(a|b)+$", "[0-9]{2}", "tru|als", "."]),
    "in_cidr": NETWORKS | st.lists(NETWORKS, max_size=3),
}


CONDITIONS = st.sampled_from(sorted(TAKES)).flatmap(
    lambda operator: st.builds(Condition, KEYS, st.just(operator), TAKES[operator])
)


@settings(max_examples=150)
@given(st.lists(CONDITIONS, min_size=1, max_size=3), st.dictionaries(KEYS, VALUES, max_size=4))
def test_conditions_say_what_the_contract_says(
    conditions: list[Condition], metadata: dict[str, Any]
) -> None:
    """Each of them, and all together."""
    expected = [satisfies(condition._asdict(), metadata) for condition in conditions]
    assert [compile_conditions([one])(metadata) for one in conditions] == expected
    assert compile_conditions(conditions)(metadata) is all(expected)


@given(SCALARS | st.lists(SCALARS, max_size=2), CONDITIONS)
def test_a_value_that_is_there_is_judged_by_the_contract(found: Any, condition: Condition) -> None:
    """Under the very key of the condition."""
    metadata = {condition.key: found}
    assert compile_conditions([condition])(metadata) is satisfies(condition._asdict(), metadata)
