"""What the scripts are asked and told about windows, in few and short words: packing and reading them is most of what a call costs."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from processor.io.windows_touched import Kind, Touched, member
from processor.pure.types import Case, Facts

About: TypeAlias = Callable[[Kind], Sequence[object]]
"""What is said of all windows of a kind."""


class Request(Struct):
    """What a script is asked in a shard: its words, and the ids they are about."""

    shard: int
    words: list[object]
    ids: bytes = b""


class Packed(Struct):
    """Windows of one shard with the events that touch them, ready to be asked about and to be added to."""

    windows: Sequence[Touched]
    kinds: Sequence[Kind]
    """Each said once in a call."""
    words: Sequence[object]
    """Of each window the number of its kind, from 1, its lead, and the time of its only event, as most have, or the times."""
    ids: bytes
    """How the windows know their events, in turn."""

    @property
    def shard(self) -> int:
        """Where they are."""
        return self.windows[0].shard


def packed(cases: Sequence[Case], windows: Sequence[Touched]) -> Packed:
    """Windows of one shard that the cases touch."""
    numbers: dict[Kind, int] = {}
    words: list[object] = []
    ids: list[bytes] = []
    for touched in windows:
        kind, events = touched.kind, touched.events
        number = numbers.get(kind) or numbers.setdefault(kind, len(numbers) + 1)
        lead = touched.lead if kind.odd else touched.lead_id
        times = [cases[n].event.occurred_at for n in events]
        words += (number, lead, times if len(times) > 1 else times[0])
        ids += [member(cases[n].event.id) for n in events]
    return Packed(windows, list(numbers), words, b"".join(ids))


def questions(about: Packed, say: About) -> Request:
    """What `windows_read` is asked."""
    return Request(about.shard, [_said(about.kinds, say), *about.words], about.ids)


def additions(about: Packed, facts: Sequence[Facts], say: About) -> Request:
    """What `windows_write` is told."""
    words: Sequence[object] = about.words
    if any(kind.velocity.keep_first for kind in about.kinds):
        words = _with_bursts(about, facts)
    return Request(about.shard, [_said(about.kinds, say), *words], about.ids)


def _said(kinds: Sequence[Kind], say: About) -> Sequence[Sequence[object]]:
    return [(kind.stem, *say(kind)) for kind in kinds]


def _with_bursts(about: Packed, facts: Sequence[Facts]) -> Sequence[object]:
    """Windows of keep-first filters have a word more: of each event the burst that it belongs to, else nothing."""
    words: list[object] = []
    copied = 0
    for n, touched in enumerate(about.windows, 1):
        velocity = touched.kind.velocity
        if velocity.keep_first:
            words += about.words[copied : 3 * n]
            words.append([facts[e].exceeded.get(velocity.revision, "") for e in touched.events])
            copied = 3 * n
    return [*words, *about.words[copied:]]
