"""What the scripts are asked and told about windows, in few and short words: packing and reading them is most of what a call costs."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from processor.io.windows_touched import Touched, member
from processor.ports import Fact
from processor.pure.types import Case

About: TypeAlias = Callable[[Touched], Sequence[object]]
"""What is said of a window that holds for all windows of its filter whose leads are of the same epoch."""


class Request(Struct):
    """What a script is asked in a shard: its words, and the ids they are about."""

    shard: int
    words: list[object]
    ids: Sequence[bytes] = ()


class _Kinds:
    """What windows have in common, each said once in a call."""

    def __init__(self, about: About) -> None:
        self.said: list[Sequence[object]] = []
        self._about = about
        self._numbers: dict[tuple[str, int, int, bool], int] = {}

    def number(self, touched: Touched) -> int:
        """Which of what is said is about the window, from 1."""
        key = touched.org_unit, touched.velocity.revision, touched.root.epoch, touched.doubted
        number = self._numbers.get(key)
        if number is None:
            self.said.append((touched.stem, *self._about(touched)))
            number = self._numbers[key] = len(self.said)
        return number


def questions(cases: Sequence[Case], part: Sequence[Touched], about: About) -> Request:
    """What `windows_read` is asked of windows of one shard."""
    kinds = _Kinds(about)
    words: list[object] = [kinds.said]
    for touched in part:
        words += (kinds.number(touched), touched.lead, _when(touched.times))
    return Request(part[0].shard, words, _ids(cases, part))


def additions(facts: Sequence[Fact], part: Sequence[Touched], about: About) -> Request:
    """What `windows_write` is told of windows of one shard."""
    kinds = _Kinds(about)
    words: list[object] = [kinds.said]
    for touched in part:
        words += (kinds.number(touched), touched.lead, _when(touched.times))
        if touched.velocity.keep_first:
            words.append(_bursts(facts, touched))
    return Request(part[0].shard, words, _ids([fact.case for fact in facts], part))


def _ids(cases: Sequence[Case], part: Sequence[Touched]) -> list[bytes]:
    """How the windows know their events, in turn."""
    return [member(cases[n].event.id) for touched in part for n, _ in touched.at]


def _when(times: list[int]) -> int | list[int]:
    """Of a single event, as in most windows, just its time."""
    return times if len(times) > 1 else times[0]


def _bursts(facts: Sequence[Fact], touched: Touched) -> Sequence[str]:
    """Of each event the one that it belongs to, else nothing."""
    revision = touched.velocity.revision
    return [facts[n].facts.exceeded.get(revision, "") for n, _ in touched.at]
