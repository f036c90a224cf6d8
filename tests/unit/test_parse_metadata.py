"""What metadata may hold: how large, how deep, how many keys, which numbers and which text."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.parse_records import accepted, event, refused, spliced

Shape = Callable[[int], dict[str, Any]]


def nested_objects(levels: int) -> dict[str, Any]:
    """Objects in objects, in all so many levels."""
    return {"a": nested_objects(levels - 1)} if levels > 1 else {}


def nested_arrays(levels: int) -> dict[str, Any]:
    """Arrays in an object, in all so many levels."""
    value: list[Any] = []
    for _ in range(levels - 2):
        value = [value]
    return {"a": value}


def flat_keys(count: int) -> dict[str, Any]:
    """So many keys side by side."""
    return {f"k{n}": n for n in range(count)}


def spread_keys(count: int) -> dict[str, Any]:
    """So many keys in all, most of them in an object in an array."""
    return {"list": [flat_keys(count - 2)], "last": 1}


def with_metadata(metadata: object) -> bytes:
    """A good event but for its metadata."""
    return spliced("metadata", json.dumps(metadata))


@pytest.mark.parametrize(
    ("shape", "most", "error"),
    [
        (nested_objects, 32, "metadata_too_deep"),
        (nested_arrays, 32, "metadata_too_deep"),
        (flat_keys, 1_000, "too_many_keys"),
        (spread_keys, 1_000, "too_many_keys"),
        (lambda size: {"k": "x" * (size - 8)}, 102_400, "metadata_too_large"),
        (
            lambda size: {"k": "é" * ((size - 8) // 2) + "x" * (size % 2)},
            102_400,
            "metadata_too_large",
        ),
        (lambda size: {"k": ["x" * (size - 10)]}, 102_400, "metadata_too_large"),
    ],
    ids=["objects", "arrays", "flat", "spread", "ascii", "two bytes", "nested"],
)
def test_metadata_has_bounds_and_the_bound_itself_is_taken(
    shape: Shape, most: int, error: str
) -> None:
    """Bytes are those of compact UTF-8 JSON, however the producer wrote it."""
    assert event(metadata=shape(most)).metadata == shape(most)
    refusal = refused(with_metadata(shape(most + 1)))
    assert (refusal.stage, refusal.error) == ("validate", error)
    assert refusal.reason.startswith("metadata ")


def test_deeper_metadata_is_refused_however_deep() -> None:
    """The depth of the text is no way around the depth of metadata."""
    assert refused(with_metadata(nested_arrays(400))).error == "metadata_too_deep"


@pytest.mark.parametrize("value", [[], "{}", 5, True, [["a", 1]]])
def test_metadata_must_be_an_object(value: object) -> None:
    """An array of pairs is none."""
    refusal = refused(with_metadata(value))
    assert (refusal.error, refusal.reason) == ("wrong_type", "metadata must be an object.")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1.0", "1.0"),
        ("1E2", "100.0"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("9223372036854775808.0", "9.223372036854776e+18"),
        ("-18446744073709551616.0", "-1.8446744073709552e+19"),
        ("1e300", "1e+300"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("5e-324", "5e-324"),
        ("1e-400", "0.0"),
        ("-1e-400", "0.0"),
        ("-0.0", "0.0"),
        ("-0e5", "0.0"),
        ("true", "true"),
        ("null", "null"),
    ],
)
@pytest.mark.parametrize("place", ["%s", "[%s]", '{"b": [1e300, %s]}'])
def test_integers_stay_exact_and_other_numbers_are_their_double(
    text: str, kept: str, place: str
) -> None:
    """Zero has no sign, as Postgres has none for it."""
    compact = (place % kept).replace(" ", "").replace("1e300", "1e+300")
    found = accepted(spliced("metadata", f'{{"a": {place % text}}}'))
    assert found.metadata_json.decode() == f'{{"a":{compact}}}'
    assert repr(found.metadata) == repr(json.loads(found.metadata_json))


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "100000000000000000000",
        "1" * 6_000,
        "1e309",
        "-1e309",
        "1" * 400 + ".0",
        "NaN",
        "Infinity",
        "-Infinity",
    ],
    ids=lambda text: text[:24],
)
def test_numbers_that_cannot_be_kept_are_refused_wherever_they_stand(text: str) -> None:
    """The reason says where, and does not repeat them."""
    for place, path in (
        ("%s", "metadata.a"),
        ('[0.5, {"b": %s}]', "metadata.a[1].b"),
        ('{"no name": [%s]}', "metadata.a.*[0]"),
    ):
        refusal = refused(spliced("metadata", f'{{"a": {place % text}}}'))
        assert (refusal.stage, refusal.error) == ("validate", "bad_number")
        assert refusal.reason == f"{path} is not a number that can be kept."


@pytest.mark.parametrize(
    ("bad", "what"),
    [("\\u0000", "NUL"), ("x\\ud800y", "a lone surrogate")],
    ids=["nul", "surrogate"],
)
def test_text_that_cannot_be_stored_is_refused_in_values_and_keys(bad: str, what: str) -> None:
    """A reason shows only keys that are plain names: others may be what a person typed."""
    for metadata, path in (
        (f'{{"a": "{bad}"}}', "metadata.a"),
        (f'{{"a": 1.5, "b": [1, ["{bad}"]]}}', "metadata.b[1][0]"),
        (f'{{"{bad}": 1}}', "metadata.*"),
        (f'{{"a": {{"me@example.com": {{"{bad}": 1}}}}}}', "metadata.a.*.*"),
    ):
        refusal = refused(spliced("metadata", metadata))
        assert (refusal.stage, refusal.error) == ("validate", "bad_text")
        assert refusal.reason == f"{path} holds {what}."


@pytest.mark.parametrize("text", ["\\\\u0000", "\\\\ud800", "\\u0001", "\\u001f\\u007f", "\\ufffe"])
def test_text_that_only_looks_bad_is_kept(text: str) -> None:
    """An escaped backslash before u0000 is no NUL."""
    assert accepted(spliced("metadata", f'{{"a": "{text}"}}')).metadata == {
        "a": json.loads(f'"{text}"')
    }


def test_metadata_keeps_its_order_and_the_last_of_two_keys() -> None:
    """Row and message have the same text."""
    found = accepted(spliced("metadata", '{"b": 1, "a": {"x": 1, "x": "2"}, "b": 3}'))
    assert found.metadata_json == b'{"b":3,"a":{"x":"2"}}'
