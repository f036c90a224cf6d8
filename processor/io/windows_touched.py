"""Which windows a batch touches, and in which shard each of them is."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar
from zlib import crc32

from msgspec import Struct

from processor.io.past import HELD_A_CALL, Window
from processor.pure.types import Case, Root, VelocityFilter

T = TypeVar("T")
EXCEEDING = ":x"
"""What the scripts append to the name of a window for that of its exceeding events."""
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


class Touched(Struct, gc=False):
    """A window with the events that touch it: (case number, number of the filter in the case), and when they occurred."""

    shard: int
    org_unit: str
    root: Root
    velocity: VelocityFilter
    at: list[tuple[int, int]]
    times: list[int]

    @property
    def looks(self) -> int:
        """At its events."""
        return len(self.at)

    @property
    def window(self) -> Window:
        """The window by itself."""
        return Window(self.org_unit, self.root.lead_id, self.root.epoch, self.velocity)

    @property
    def suffix(self) -> str:
        """Names the window within a generation; ids hold no NUL."""
        return self.stem + self.lead

    @property
    def lead(self) -> str:
        """The lead as the window's name ends: never as that of another lead's exceeding events does."""
        lead_id = self.root.lead_id
        return f"{lead_id}\0" if lead_id.endswith(EXCEEDING) else lead_id

    @property
    def doubted(self) -> bool:
        """Whether it holds members that were written under another name, before a merge or by an earlier version: absent, it is built."""
        return self.root.epoch != 0 or self.root.lead_id.endswith(EXCEEDING)

    @property
    def stem(self) -> str:
        """How the names of all windows of its filter begin whose leads are of the same epoch."""
        return f"{self.velocity.revision}:{self.root.epoch}:{self.org_unit}\0"


def member(event_id: str) -> bytes:
    """How windows know an event."""
    return blake2b(event_id.encode(), digest_size=16).digest()


def window_of(case: Case, velocity: VelocityFilter) -> Window:
    """The window that an event is judged by."""
    return Window(case.event.org_unit, case.root.lead_id, case.root.epoch, velocity)


def touched_by(cases: Sequence[Case], shards: int = 1) -> list[Touched]:
    """Each window once."""
    found: dict[tuple[str, str, int, int], Touched] = {}
    for n, case in enumerate(cases):
        if case.watching:
            org_unit, root = case.event.org_unit, case.root
            for f, velocity in enumerate(case.watching):
                key = (org_unit, root.lead_id, root.epoch, velocity.revision)
                touched, at = found.get(key), case.event.occurred_at
                if touched is None:
                    shard = shard_of(org_unit, root.lead_id, shards) if shards > 1 else 0
                    found[key] = Touched(shard, org_unit, root, velocity, [(n, f)], [at])
                else:
                    touched.at.append((n, f))
                    touched.times.append(at)
    return list(found.values())


def shard_of(org_unit: str, lead_id: str, shards: int) -> int:
    """Where all windows of a lead are: the same in every process, for ever."""
    return crc32(f"{org_unit}\0{lead_id}".encode()) % shards


def by_shard(asked: Sequence[Of], most: int) -> list[Sequence[Of]]:
    """Parts of one shard each, small enough not to hold up its server."""
    found: dict[int, list[Of]] = {}
    for one in asked:
        found.setdefault(one.shard, []).append(one)
    return [part for own in found.values() for part in _parts(own, most, _looks_of, _LOOKS_A_CALL)]


def heaps(wanted: Sequence[Touched], most: int) -> Iterator[Sequence[Touched]]:
    """Parts of at most `most` windows, and of fewer where they may hold many members: three slices of some are all that fits."""
    return _parts(wanted, most, _members_of, HELD_A_CALL)


def _looks_of(one: InShard) -> int:
    return one.looks


def _members_of(touched: Touched) -> int:
    return 6 * (touched.velocity.threshold + 1)


def _parts(
    whole: Sequence[T], most: int, weigh: Callable[[T], int], heaviest: int
) -> Iterator[Sequence[T]]:
    """Parts of at most so many, and so heavy together where they are more than one."""
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
