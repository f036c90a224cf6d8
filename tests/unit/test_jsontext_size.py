"""How large a decoded body is, however it is nested."""

from typing import Any

import pytest

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
