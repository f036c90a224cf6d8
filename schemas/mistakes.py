"""Mistakes in what a person wrote, in words of who writes it: pydantic's faults, each with the field it stands in."""

import re
from collections.abc import Sequence
from typing import TypeAlias

from pydantic import ValidationError

Place: TypeAlias = Sequence[int | str]
"""The way to a value: names of fields and places in lists, from 0."""

_PLAIN_WORDS = (
    (r"^Value error, ", ""),
    (r"^Extra inputs are not permitted$", "there is no such field"),
    (r"^Field required$", "is required"),
    (r"^Input should be None$", "this operator takes no value"),
    (r"^Input tag ('.*') found .* expected tags: (.*)$", r"there is no operator \1, only \2"),
    (r"^Tuple should have (.*) after validation, not", r"the list should have \1, not"),
    (r"valid tuple", "list"),
    (r"valid dictionary or instance of \w+", "mapping"),
    (r"valid dictionary", "mapping"),
)
"""How pydantic puts it, and how someone who writes YAML or JSON does."""


def innermost(error: ValidationError) -> Sequence[tuple[Place, str]]:
    """Place and message of each fault, without the faults of a list that come of those in it."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    faults = [(fault["loc"], fault["msg"]) for fault in found]
    outer = {place[:length] for place, _ in faults for length in range(len(place))}
    return [fault for fault in faults if fault[0] not in outer]


def sentence(words: Sequence[str], message: str, whole: str) -> str:
    """``org unit acme, velocity filter vf-10, threshold: …``; `whole` where no words tell the place."""
    for pattern, plain in _PLAIN_WORDS:
        message = re.sub(pattern, plain, message)
    return f"{', '.join(words) or whole}: {message}"


def fields(place: Place) -> list[str]:
    """The fields, each place in a list counted from 1; the operator a condition is told by left out."""
    words: list[str] = []
    for before, step in zip([None, *place], place, strict=False):
        if isinstance(step, int):
            words[-1] += f" {step + 1}"
        elif not isinstance(before, int):
            words.append(step)
    return words
