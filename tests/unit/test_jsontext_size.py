"""How large a decoded body is, however it is nested."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure import jsontext


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, (0, 0)),
        ("text", (0, 0)),
        ([], (1, 0)),
        ({}, (1, 0)),
        ({"a": 1, "b": [1, 2]}, (2, 2)),
        ([{"a": {"b": 1}}, {"c": []}], (3, 3)),
    ],
)
def test_levels_and_keys_are_counted(value: Any, size: tuple[int, int]) -> None:
    assert jsontext.size(value) == size


def test_the_deepest_value_that_can_be_decoded_is_measured() -> None:
    value = jsontext.decode(b"[" * jsontext.DEEPEST + b"]" * jsontext.DEEPEST)
    assert jsontext.size(value) == (jsontext.DEEPEST, 0)  # type: ignore[arg-type]


@given(st.lists(st.sampled_from([*'[]{}"\\a', '"a\\"]"', "[[["]), max_size=40), st.integers(1, 5))
def test_a_text_is_too_deep_where_one_more_container_is_open_than_may_be(
    parts: list[str], deepest: int
) -> None:
    """What is in strings opens nothing; whether the text is JSON is no question here."""
    text = "".join(parts)
    assert jsontext.excessive(text.encode(), deepest) == (
        len(text) > 2 * deepest and most_open(text) > deepest
    )


def most_open(text: str) -> int:
    """How many containers are open at once, at most."""
    depth = most = 0
    inside = escaped = False
    for mark in text:
        if inside:
            inside, escaped = escaped or mark != '"', not escaped and mark == "\\"
        elif mark == '"':
            inside = True
        else:
            depth += (mark in "[{") - (mark in "]}")
            most = max(most, depth)
    return most


@given(st.recursive(st.none() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_a_text_that_is_not_numerous_has_no_more_values(value: Any) -> None:
    """And texts count once, whatever they say."""
    text = orjson.dumps(value)
    assert not jsontext.numerous(text, 2 * _values(value))
    assert _values(value) == 1 or jsontext.numerous(text, _values(value) - 2)


def _values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + sum(map(_values, inner)) if isinstance(value, dict | list) else 1


def test_what_is_in_texts_is_no_value() -> None:
    """Marks inside of them are none."""
    assert not jsontext.numerous(rb'["[[[,,,{{{\"[[[,,,{{{"]', 1)
    assert jsontext.numerous(b'["a","b"]', 1)
