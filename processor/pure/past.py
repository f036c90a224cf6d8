"""The exceeding events of a keep-first filter among events that are older than it, had it always been there.

Events come in processing order, in parts of any size, and merges and unmerges come between them: each event is judged among those
of the leads that were one with its own then.  What is remembered of leads that are one is their times, and of each window-aligned
slice the first and the last that exceeded: these are less than a window away from whatever any of the slice is.  The same is
remembered of each lead alone: it is what an unmerge leaves, and what leads that are one now bring with them.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence, Set
from itertools import chain
from typing import TypeAlias

from processor.pure.types import VelocityFilter

Exceeding: TypeAlias = tuple[int, str, str]
"""Time, event id, burst id."""
Member: TypeAlias = tuple[int, str, str, int]
"""Time, event id, the lead that the event named, number of its batch."""
Link: TypeAlias = tuple[int, Sequence[str], str | None]
"""A merge or an unmerge: number of its batch, and the roots that it joined to another one or, where that is None, made roots again."""


class Fold:
    """The fold of one window; `links` are all merges and unmerges that concern its leads, in the order of their batches."""

    def __init__(self, velocity: VelocityFilter, links: Sequence[Link] = ()) -> None:
        self._threshold = velocity.threshold
        self._width = velocity.window_ms
        self._links = links
        self._linked = 0
        self._above: dict[str, str] = {}
        """The root that each lead was joined to."""
        self._roots: dict[str, str] = {}
        """Of leads asked for since the last link."""
        self._own: dict[str, _Events] = {}
        """Of each lead alone."""
        self._united: dict[str, _Events] = {}
        """By root; absent where nothing was ever joined to it: what is its own is all."""

    def add(self, members: Iterable[Member]) -> None:
        """The next events, in processing order."""
        for at, event_id, lead, batch in members:
            if self._linked < len(self._links):
                self._link(batch)
            own = self._own.get(lead)
            if own is None:
                own = self._own[lead] = _Events(self._width)
            judging = self._united.get(self._root(lead), own) if self._united else own
            exceeding = None
            if judging.add(at) > self._threshold:
                exceeding = at, event_id, judging.burst_near(at) or event_id
                judging.keep(exceeding)
            if judging is not own:
                own.add(at)
                if exceeding is not None:
                    own.keep(exceeding)

    def exceeding(self, leads: Iterable[str]) -> Sequence[Exceeding]:
        """Of leads that are one now, ascending: of each slice the first and the last."""
        together = _Events(self._width)
        for own in [self._own[lead] for lead in leads if lead in self._own]:
            together.keep_all(own)
        return together.exceeding()

    def _root(self, lead: str) -> str:
        root = self._roots.get(lead)
        if root is None:
            root = lead
            while root in self._above:
                root = self._above[root]
            self._roots[lead] = root
        return root

    def _link(self, batch: int) -> None:
        """What was merged and unmerged before a batch is so from now on; no event lies between, so only what it comes to is made."""
        torn: set[str] = set()
        while self._linked < len(self._links) and self._links[self._linked][0] < batch:
            _, roots, survivor = self._links[self._linked]
            self._linked += 1
            if survivor is None:
                self._part(roots, torn)
            else:
                self._join(roots, survivor, torn)
            self._roots.clear()
        if torn:
            self._make_anew({self._root(lead) for lead in torn})

    def _join(self, roots: Sequence[str], survivor: str, torn: set[str]) -> None:
        """The largest takes the others in, so that a lead to which others are joined one by one is not gone through each time."""
        joined = (*roots, survivor)
        alone = [self._own[r] for r in joined if r in self._own and r not in self._united]
        united = [self._united.pop(root) for root in joined if root in self._united]
        # What is torn is made anew, for the root that it has in the end.
        if torn.isdisjoint(joined):
            largest = max(united, key=_Events.size, default=_Events(self._width))
            largest.take([*alone, *(events for events in united if events is not largest)])
            self._united[survivor] = largest
        self._above.update(dict.fromkeys(roots, survivor))

    def _part(self, roots: Sequence[str], torn: set[str]) -> None:
        """Of leads that were one nobody knows what belongs to which part."""
        touched = {*roots, *map(self._root, roots)}
        torn |= touched
        for root in roots:
            self._above.pop(root, None)
        for root in touched:
            self._united.pop(root, None)

    def _make_anew(self, roots: Set[str]) -> None:
        """What leads that are one have together, of what each of them has."""
        theirs: dict[str, list[_Events]] = {root: [] for root in roots}
        for lead, own in self._own.items():
            if self._root(lead) in roots:
                theirs[self._root(lead)].append(own)
        for root, parts in theirs.items():
            self._united[root] = _Events(self._width)
            self._united[root].take(parts)


class _Events:
    """Times of events, and those that exceeded: of each slice the first and the last, perhaps the same."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.times = array("q")  # ascending
        self.ends: dict[int, tuple[Exceeding, Exceeding]] = {}

    def size(self) -> int:
        return len(self.times)

    def add(self, at: int) -> int:
        """One more event; how many there are now in the window that ends with it."""
        until = bisect_right(self.times, at)
        self.times.insert(until, at)
        return until + 1 - bisect_right(self.times, at - self._width)

    def burst_near(self, at: int) -> str | None:
        """The burst of an exceeding event less than a window away."""
        number = at // self._width
        for ends in map(self.ends.get, (number - 1, number, number + 1)):
            for other, _, burst in ends or ():
                if abs(other - at) < self._width:
                    return burst
        return None

    def keep(self, fact: Exceeding) -> None:
        """One more exceeding event."""
        number = fact[0] // self._width
        first, last = self.ends.get(number, (fact, fact))
        self.ends[number] = min(first, fact), max(last, fact)

    def keep_all(self, other: "_Events") -> None:
        for fact in chain.from_iterable(other.ends.values()):
            self.keep(fact)

    def exceeding(self) -> list[Exceeding]:
        return sorted({*chain.from_iterable(self.ends.values())})

    def take(self, others: Sequence["_Events"]) -> None:
        """What others have is had too."""
        largest, *few = sorted(
            (self.times, *(other.times for other in others)), key=len, reverse=True
        )
        times = array("q", sorted(chain.from_iterable(few)))
        if times or largest is not self.times:
            self.times = _merged(*sorted((times, largest), key=len))
        for other in others:
            self.keep_all(other)


def _merged(few: "array[int]", many: "array[int]") -> "array[int]":
    """Both, ascending as each is: what lies between two of the few is copied at once."""
    merged, begin = array("q"), 0
    for at in few:
        end = bisect_right(many, at, begin)
        merged += many[begin:end]
        merged.append(at)
        begin = end
    return merged + many[begin:]
