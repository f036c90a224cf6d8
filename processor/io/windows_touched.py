"""Which windows a batch touches, and in which shard each of them is."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar
from zlib import crc32

from msgspec import Struct

from processor.io.past import HELD_A_CALL, Window
from processor.pure.parts import parts
from processor.pure.types import Case, VelocityFilter

EXCEEDING = ":x"
"""What the scripts append to the name of a window for that of its exceeding events."""
_HASH = blake2b(digest_size=16)
_LOOKS_A_CALL = 2_500
"""At events in windows, some 5 µs each: others wait for a script."""


class InShard(Protocol):
    """Whatever is asked of one shard."""

    @property
    def shard(self) -> int: ...
    @property
    def looks(self) -> int:
        """At how many events in a window."""


Of = TypeVar("Of", bound=InShard)


class Kind(Struct, eq=False):
    """What windows of one filter have in common whose leads are of the same epoch."""

    org_unit: str
    velocity: VelocityFilter
    epoch: int
    place: int
    """The number of the filter among those that watch their events."""
    odd: bool
    """Their leads end as names of exceeding events do: their own names end otherwise."""

    @property
    def stem(self) -> str:
        """How their names begin within a generation; ids hold no NUL."""
        return f"{self.velocity.revision}:{self.epoch}:{self.org_unit}\0"

    @property
    def doubted(self) -> bool:
        """Whether they may hold members that were written under another name, before a merge or by an earlier version: absent, they are built."""
        return self.epoch != 0 or self.odd


class Touched(Struct, gc=False):
    """A window with the events that touch it: the numbers of their cases."""

    shard: int
    kind: Kind
    lead_id: str
    events: Sequence[int]

    @property
    def looks(self) -> int:
        """At its events."""
        return len(self.events)

    @property
    def window(self) -> Window:
        """The window by itself."""
        kind = self.kind
        return Window(kind.org_unit, self.lead_id, kind.epoch, kind.velocity)

    @property
    def lead(self) -> str:
        """The lead as the window's name ends: never as that of another lead's exceeding events does."""
        return f"{self.lead_id}\0" if self.kind.odd else self.lead_id

    @property
    def suffix(self) -> str:
        """Names the window within a generation."""
        return self.kind.stem + self.lead


def member(event_id: str) -> bytes:
    """How windows know an event."""
    known = _HASH.copy()  # cheaper than another one
    known.update(event_id.encode())
    return known.digest()


def window_of(case: Case, velocity: VelocityFilter) -> Window:
    """The window that an event is judged by."""
    return Window(case.event.org_unit, case.root.lead_id, case.root.epoch, velocity)


def touched_by(cases: Sequence[Case], shards: int = 1) -> list[Touched]:
    """Each window once, those of a filter together.  Events of one type in an org unit are watched by the same filters."""
    found: dict[tuple[str, str, int], dict[str, list[int]]] = {}
    for n, case in enumerate(cases):
        if case.watching:
            event, root = case.event, case.root
            alike = event.org_unit, event.event_type, root.epoch
            leads = found.get(alike)
            if leads is None:
                leads = found[alike] = {}
            events = leads.get(root.lead_id)
            if events is None:
                leads[root.lead_id] = [n]
            else:
                events.append(n)
    return [
        touched
        for (org_unit, _, epoch), leads in found.items()
        for touched in _windows(cases, org_unit, epoch, leads, shards)
    ]


def _windows(
    cases: Sequence[Case],
    org_unit: str,
    epoch: int,
    leads: Mapping[str, Sequence[int]],
    shards: int,
) -> Iterator[Touched]:
    """Of leads whose events are watched alike, by every filter that does."""
    first = next(iter(leads.values()))[0]
    for place, velocity in enumerate(cases[first].watching):
        kinds = [Kind(org_unit, velocity, epoch, place, odd) for odd in (False, True)]
        for lead_id, events in leads.items():
            shard = shard_of(org_unit, lead_id, shards) if shards > 1 else 0
            yield Touched(shard, kinds[lead_id.endswith(EXCEEDING)], lead_id, events)


def shard_of(org_unit: str, lead_id: str, shards: int) -> int:
    """Where all windows of a lead are: the same in every process, for ever."""
    return crc32(f"{org_unit}\0{lead_id}".encode()) % shards


def by_shard(asked: Sequence[Of], most: int) -> list[Sequence[Of]]:
    """Parts of one shard each, small enough not to hold up its server."""
    found: dict[int, list[Of]] = {}
    for one in asked:
        found.setdefault(one.shard, []).append(one)
    return [part for own in found.values() for part in parts(own, _looks_of, _LOOKS_A_CALL, most)]


def heaps(wanted: Sequence[Touched], most: int) -> Iterator[Sequence[Touched]]:
    """Parts of at most `most` windows, and of fewer where they may hold many members: three slices of some are all that fits."""
    return parts(wanted, _members_of, HELD_A_CALL, most)


def _looks_of(one: InShard) -> int:
    return one.looks


def _members_of(touched: Touched) -> int:
    return 6 * (touched.kind.velocity.threshold + 1)
