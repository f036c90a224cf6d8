"""A whole in parts that are not too heavy."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def parts(
    whole: Iterable[T], weigh: Callable[[T], int], heaviest: int, most: int | None = None
) -> Iterator[Sequence[T]]:
    """In order; parts of at most `most` items, and together no heavier than `heaviest` where they are more than one."""
    part: list[T] = []
    held = 0
    for one in whole:
        weight = weigh(one)
        if part and (len(part) == most or held + weight > heaviest):
            yield part
            part, held = [], 0
        part.append(one)
        held += weight
    if part:
        yield part
