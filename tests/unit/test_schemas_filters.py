"""Filters as a person writes them: every limit and every operator, with what the text says about a mistake."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import schemas
from processor.pure.attributes import compile_conditions
from schemas import mistakes

CONDITION: TypeAdapter[schemas.Condition] = TypeAdapter(schemas.Condition)
EXISTS = {"key": "a", "operator": "exists"}
VELOCITY: dict[str, Any] = {
    "id": "vf-10",
    "name": "Bursts",
    "event_type": "x",
    "threshold": 3,
    "window_ms": 1000,
}
METADATA: dict[str, Any] = {"id": "mf-10", "name": "Bots", "conditions": [EXISTS]}


def of_file(velocity: dict[str, Any], metadata: dict[str, Any]) -> schemas.OrgFilters:
    """An org unit with these two."""
    document = {"velocity_filters": [velocity], "metadata_filters": [metadata]}
    return schemas.FilterFile.model_validate({"org_units": {"acme": document}}).org_units["acme"]


def test_what_a_filter_leaves_out_has_its_default() -> None:
    """Enabled, not keep-first, every type."""
    filters = of_file(VELOCITY, METADATA)
    velocity, metadata = filters.velocity_filters[0], filters.metadata_filters[0]
    assert (velocity.event_type, velocity.keep_first, velocity.enabled) == ("X", False, True)
    assert (metadata.event_type, metadata.enabled) == ("", True)


@pytest.mark.parametrize(
    "limits",
    [
        {"id": "a" * 64},
        {"threshold": 0},
        {"threshold": 10_000},
        {"window_ms": 1},
        {"window_ms": 2_592_000_000},
        {"event_type": "_x"},
        {"event_type": "x" * 128},
    ],
)
def test_a_velocity_filter_may_be_at_its_limits(limits: dict[str, Any]) -> None:
    """30 days, 10,000 events."""
    (velocity,) = of_file({**VELOCITY, **limits}, METADATA).velocity_filters
    assert velocity.name == "Bursts"


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"id": ""}, "id"),
        ({"id": "A"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": "a" * 65}, "id"),
        ({"id": "mf-10"}, "twice here: mf-10"),
        ({"name": ""}, "name"),
        ({"name": "a\0"}, "NUL"),
        ({"event_type": ""}, "event_type"),
        ({"event_type": " _-"}, "nothing is left"),
        ({"event_type": "x" * 129}, "event_type"),
        ({"threshold": -1}, "threshold"),
        ({"threshold": 10_001}, "threshold"),
        ({"threshold": 3.0}, "threshold"),
        ({"threshold": "3"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"window_ms": 0}, "window_ms"),
        ({"window_ms": 2_592_000_001}, "window_ms"),
        ({"keep_first": 1}, "keep_first"),
        ({"enabled": "yes"}, "enabled"),
        ({"thresold": 3}, "thresold"),
        ({"version": 2}, "version"),
    ],
)
def test_a_wrong_velocity_filter_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    """Also a field it does not know: it is a typo."""
    with pytest.raises(ValidationError, match=complaint):
        of_file({**VELOCITY, **wrong}, METADATA)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"conditions": []}, "at least 1"),
        ({"conditions": [EXISTS] * 21}, "at most 20"),
        ({"conditions": None}, "conditions"),
        ({"event_type": "-"}, "nothing is left"),
        ({"event_type": None}, "event_type"),
        ({"keep_first": True}, "keep_first"),
    ],
)
def test_a_wrong_metadata_filter_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    """Only an empty event type means every type."""
    with pytest.raises(ValidationError, match=complaint):
        of_file(VELOCITY, {**METADATA, **wrong})


LONGEST_NETWORK = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"


def test_the_conditions_of_a_filter_have_at_most_a_megabyte() -> None:
    """Room for as many lists as there may be, of as many networks as there may be, in their longest spelling."""
    networks = {"key": "k" * 100, "operator": "in_cidr", "value": [LONGEST_NETWORK] * 1_000}
    (widest,) = of_file(VELOCITY, {**METADATA, "conditions": [networks] * 20}).metadata_filters
    assert len(widest.conditions) == 20
    text = {"key": "k", "operator": "contains", "value": ""}
    room = schemas.LARGEST_CONDITIONS - len(orjson.dumps([text]))
    for letter in ("x", "é"):
        fits = {**text, "value": letter * (room // len(letter.encode()))}
        of_file(VELOCITY, {**METADATA, "conditions": [fits]})
        more = {**text, "value": fits["value"] + letter}
        with pytest.raises(ValidationError, match="at most 1048576 bytes"):
            of_file(VELOCITY, {**METADATA, "conditions": [more]})


def _searches(number: int) -> list[dict[str, Any]]:
    """Conditions of a few bytes each that become half a megabyte each."""
    return [
        {"key": "k", "operator": "matches", "value": rf"\pL{{53}}|{number}x{n}"}
        for n in range(number)
    ]


def test_the_conditions_of_a_filter_take_at_most_4_mb_in_memory() -> None:
    """However few bytes they are as JSON; patterns weigh what RE2 makes of them, items of lists more than their digits."""
    of_file(VELOCITY, {**METADATA, "conditions": _searches(6)})
    with pytest.raises(ValidationError, match=r"at most 4194304 bytes in memory, not [45]\d{6}:"):
        of_file(VELOCITY, {**METADATA, "conditions": _searches(7)})
    numbers = {"key": "k", "operator": "in", "value": [*range(1_000)]}
    (listed,) = of_file(VELOCITY, {**METADATA, "conditions": [numbers] * 20}).metadata_filters
    assert 3_000_000 < listed.weight < 4_000_000
    text = {"key": "k", "operator": "contains", "value": "x" * 1_000}
    (plain,) = of_file(VELOCITY, {**METADATA, "conditions": [text]}).metadata_filters
    assert plain.weight == len(orjson.dumps([text]))


def test_an_org_unit_has_at_most_1000_filters_of_a_kind() -> None:
    """And as many of the other."""
    many = [{**VELOCITY, "id": f"vf-{n}"} for n in range(1_001)]
    assert (
        len(schemas.OrgFilters.model_validate({"velocity_filters": many[1:]}).velocity_filters)
        == 1_000
    )
    with pytest.raises(ValidationError, match="at most 1000"):
        schemas.OrgFilters.model_validate({"velocity_filters": many})


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("equals", ["x", 1, -1.5, True, 2**64 - 1]),
        ("not_equals", ["x", 0, False]),
        ("contains", ["x"]),
        ("not_contains", ["x"]),
        ("starts_with", ["x"]),
        ("ends_with", ["x"]),
        ("exists", [None]),
        ("not_exists", [None]),
        ("in", [["x", 1, True], [], ["x"] * 1_000]),
        ("gt", [1, -2.5, "10", "1e3"]),
        ("lt", [1]),
        ("matches", ["bot|spider", "x" * 1_000]),
        ("in_cidr", ["10.0.0.1/8", "::1", ["10.0.0.0/8", "::ffff:10.0.0.0/104"]]),
    ],
)
def test_each_operator_takes_its_values(operator: str, values: list[Any]) -> None:
    """And what the schema takes, the compiler takes."""
    for value in values:
        condition = CONDITION.validate_python({"key": "k", "operator": operator, "value": value})
        assert compile_conditions([condition])({}) in (True, False)


@pytest.mark.parametrize(
    ("operator", "values", "complaint"),
    [
        ("equals", ["", None, [], {}], "a text that is not empty"),
        ("equals", [2**64, -(2**63) - 1], "integers go from"),
        ("equals", [float("inf"), float("nan")], "NaN and Infinity"),
        ("equals", ["a\0"], "NUL"),
        ("equals", ["\ud800"], "surrogates"),
        ("contains", [1, True, None, ["x"]], "valid string"),
        ("starts_with", [""], "at least 1"),
        ("exists", [True, ""], "should be None"),
        ("in", ["x", None, {"x": 1}], "valid tuple"),
        ("in", [["x"] * 1_001], "at most 1000"),
        ("in", [[""], [None], [["x"]]], "a text that is not empty"),
        ("gt", [True, "x", "", " 1", "0x1", None, "nan"], "a number is needed"),
        ("matches", ["("], "RE2 refuses the pattern"),
        ("matches", [r"(?=x)", r"(a)\1", "(a{1000}){1000}"], "RE2 refuses the pattern"),
        ("matches", ["x" * 1_001], "at most 1000"),
        ("in_cidr", ["10.0.0.0/33", "host", ["10.0.0.0/8", ""]], "does not appear to be"),
        ("in_cidr", [10, None, [1]], "a network, such as"),
        ("in_cidr", [["10.0.0.0/8"] * 1_001, [None] * 1_001], "at most 1000"),
        ("in_cidr", ["fe80::%\0/64", ["fe80::1%a\0"]], "NUL"),
        ("in_cidr", ["fe80::%\ud800/64", ["fe80::1%\udfff"]], "surrogates"),
        ("is", ["x"], "does not match any of the expected tags"),
    ],
)
def test_each_operator_refuses_other_values(
    operator: str, values: list[Any], complaint: str
) -> None:
    """The text says what would do."""
    for value in values:
        with pytest.raises(ValidationError, match=complaint):
            CONDITION.validate_python({"key": "k", "operator": operator, "value": value})


@pytest.mark.parametrize(
    ("field", "conditions"),
    [
        ("conditions", [0] * 100_000),
        ("conditions", [EXISTS, {}] * 50_000),
        ("value", [{"key": "k", "operator": "in", "value": [[]] * 100_000}]),
        ("value", [{"key": "k", "operator": "in_cidr", "value": [0] * 100_000}]),
    ],
)
def test_a_list_that_is_too_long_is_one_fault(field: str, conditions: list[Any]) -> None:
    """However many of its items are faults too: each would be kept, with all that is said of it."""
    with pytest.raises(ValidationError) as found:
        schemas.MetadataDefinition.model_validate({**METADATA, "conditions": conditions})
    assert found.value.error_count() <= 2
    ((place, message),) = mistakes.innermost(found.value)
    assert (place[-1], message.partition(" at most")[0]) == (field, "Tuple should have")


OPERATORS = ["equals", "contains", "starts_with", "exists", "in", "gt", "lt", "matches", "in_cidr"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANY_VALUE = PLAIN | st.lists(PLAIN, max_size=3) | st.sampled_from(["1", "10.0.0.0/8", "a.*"])


@given(st.text(max_size=5), st.sampled_from(OPERATORS), ANY_VALUE)
def test_whatever_condition_the_schema_takes_compiles(key: str, operator: str, value: Any) -> None:
    """So no filter is stored that a worker cannot load."""
    try:
        condition = CONDITION.validate_python({"key": key, "operator": operator, "value": value})
    except ValidationError:
        return
    assert compile_conditions([condition])({}) in (True, False)
