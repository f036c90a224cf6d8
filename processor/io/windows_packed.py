"""What the scripts are asked and told about windows, in few and short words: packing and reading them is most of what a call costs."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

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
    words: list[Any]
    """Of each window the number of its kind, from 1, its lead, and the time of its only event, as most have, or the times.  A number is
    higher by that of the kinds where the window is calm, and once more where it was begun for its events."""
    ids: bytes
    """How the windows know their events, in turn."""

    @property
    def shard(self) -> int:
        """Where they are."""
        return self.windows[0].shard

    def answered(self, reply: Sequence[object]) -> None:
        """Takes what `windows_read` says of each window: adding to one that is calm is less work, and least where this call has begun it."""
        kinds = len(self.kinds)
        self.words[::3] = [
            kind + kinds * (1 + answer) if type(answer) is int else kind
            for kind, answer in zip(self.words[::3], reply, strict=True)
        ]


def packed(cases: Sequence[Case], windows: Sequence[Touched]) -> Packed:
    """Windows of one shard that the cases touch."""
    numbers: dict[Kind, int] = {}
    words: list[Any] = []
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
    """What `windows_write` is told, once the answer to `questions` has said which windows are calm."""
    words: Sequence[object] = about.words
    if any(kind.velocity.keep_first for kind in about.kinds):
        words = _with_bursts(about, facts)
    plain = _said(about.kinds, say)
    calm = [(*said[:2], False, *said[3:]) for said in plain]
    begun = [(*said[:5], False, said[6]) for said in calm]
    return Request(about.shard, [[*plain, *calm, *begun], *words], about.ids)


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
