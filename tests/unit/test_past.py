"""The fold over what is older than a filter, against one that forgets nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure.past import Exceeding, Fold, Link, Member
from processor.pure.types import VelocityFilter

Step: TypeAlias = tuple[str, str, str, int]
"""An event of a lead at a time, or a merge of a lead into another one, or that a lead becomes a root again."""
LEADS = "ABCDE"

TIMES = st.lists(st.integers(-40, 400), max_size=60)
WIDTHS = st.integers(1, 60)
THRESHOLDS = st.integers(0, 4)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(("event", "event", "event", "merge", "part")),
        st.sampled_from(LEADS[:3]),
        st.sampled_from(LEADS[:3]),
        st.integers(0, 25),
    ),
    max_size=40,
)


def keep_first(threshold: int, width: int) -> VelocityFilter:
    """A filter of which only these two matter."""
    return VelocityFilter("vf", "Bursts", 1, "Page View", threshold, width, True, 2, 1_000)


def whole_fold(times: list[int], threshold: int, width: int) -> list[Exceeding]:
    """Every exceeding event, ascending, by looking at all that came before."""
    found: list[Exceeding] = []
    for n, at in enumerate(times):
        if sum(at - width < other <= at for other in times[: n + 1]) <= threshold:
            continue
        near = [fact for fact in sorted(found) if abs(fact[0] - at) < width]
        found.append((at, f"e{n:03}", near[0][2] if near else f"e{n:03}"))
    return sorted(found)


def folded(times: list[int], threshold: int, width: int, part: int = 7) -> list[Exceeding]:
    """What the product folds, part by part."""
    fold = Fold(keep_first(threshold, width))
    events = [(at, f"e{n:03}", "A", n) for n, at in enumerate(times)]
    for first in range(0, len(events), part):
        fold.add(events[first : first + part])
    return list(fold.exceeding("A"))


def ends(times: list[int], width: int) -> list[int]:
    """Of each slice the first and the last."""
    slices: dict[int, list[int]] = {}
    for at in times:
        slices.setdefault(at // width, []).append(at)
    return sorted(
        at for own in slices.values() for at in ([min(own), max(own)] if own[1:] else own)
    )


@given(TIMES, THRESHOLDS, WIDTHS)
def test_of_each_slice_the_first_and_last_exceeding_event_is_remembered(
    times: list[int], threshold: int, width: int
) -> None:
    """In whatever order the events came."""
    whole = [at for at, _, _ in whole_fold(times, threshold, width)]
    assert [at for at, _, _ in folded(times, threshold, width)] == ends(whole, width)


@given(TIMES, THRESHOLDS, WIDTHS)
def test_events_in_the_order_of_time_belong_to_the_bursts_that_a_whole_past_gives_them(
    times: list[int], threshold: int, width: int
) -> None:
    """Less than a window around an event there is one burst then, whoever of it is asked."""
    times.sort()
    bursts = {event_id: burst for _, event_id, burst in whole_fold(times, threshold, width)}
    for _, event_id, burst in folded(times, threshold, width):
        assert burst == bursts[event_id]


@given(TIMES, THRESHOLDS, WIDTHS)
def test_an_event_is_near_to_what_is_remembered_when_it_is_near_to_anything(
    times: list[int], threshold: int, width: int
) -> None:
    """So a verdict does not notice what was forgotten."""
    whole = [at for at, _, _ in whole_fold(times, threshold, width)]
    held = [at for at, _, _ in folded(times, threshold, width)]
    for at in range(-100, 460):
        near = any(abs(other - at) < width for other in whole)
        assert near == any(abs(other - at) < width for other in held)


@dataclass
class History:
    """What happened to leads, each step in a batch of its own, and what of it exceeds where the filter was there all the time."""

    velocity: VelocityFilter
    above: dict[str, str] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    bursts: dict[str, Set[str]] = field(default_factory=dict)
    """Of each event that exceeded those it may belong to."""

    def root(self, lead: str) -> str:
        """Who it was joined to, and so on."""
        return self.root(self.above[lead]) if lead in self.above else lead

    def one_with(self, lead: str) -> str:
        """All leads that have its root."""
        return "".join(other for other in LEADS if self.root(other) == self.root(lead))

    def happen(self, steps: Iterable[Step]) -> None:
        """All of these, in order."""
        for kind, lead, other, at in steps:
            batch = len(self.members) + len(self.links)
            if kind == "event":
                self._judge(at, lead)
                self.members.append((at, f"e{batch:02}", lead, batch))
            elif kind == "part" and lead in self.above:
                del self.above[lead]
                self.links.append((batch, [lead], None))
            elif kind == "merge" and self.root(lead) != self.root(other):
                root, survivor = self.root(lead), self.root(other)
                self.above[root] = survivor
                self.links.append((batch, [root], survivor))

    def _judge(self, at: int, lead: str) -> None:
        width, event_id = self.velocity.window_ms, f"e{len(self.members) + len(self.links):02}"
        past = [member for member in self.members if member[2] in self.one_with(lead)]
        if 1 + sum(at - width < other <= at for other, *_ in past) > self.velocity.threshold:
            near = [i for other, i, *_ in past if abs(other - at) < width]
            joined = {burst for i in near for burst in self.bursts.get(i, ())}
            self.bursts[event_id] = joined or {event_id}

    def folded(self, lead: str, part: int = 5) -> list[Exceeding]:
        """What the product makes of it for who a lead is one with in the end."""
        fold = Fold(self.velocity, self.links)
        for first in range(0, len(self.members), part):
            fold.add(self.members[first : first + part])
        return list(fold.exceeding(self.one_with(lead)))


@given(STEPS, STEPS, st.integers(0, 3), st.integers(1, 20), st.sampled_from(LEADS[:3]))
def test_events_are_judged_among_the_leads_that_were_one_with_their_own_when_they_came(
    steps: list[Step], later: list[Step], threshold: int, width: int, lead: str
) -> None:
    """And those are remembered that leads which are one in the end bring with them: an event is near to one when it is near to any."""
    history = History(keep_first(threshold, width))
    history.happen(steps)
    history.happen(step for step in later if step[0] != "event")
    held = history.folded(lead)
    assert all(burst in history.bursts[event_id] for _, event_id, burst in held)
    mine = [m for m in history.members if m[2] in history.one_with(lead) and m[1] in history.bursts]
    for at in range(-30, 100):
        near = any(abs(other - at) < width for other, *_ in mine)
        assert near == any(abs(other - at) < width for other, *_ in held)
    assert max(Counter(at // width for at, *_ in held).values(), default=0) <= 2
    assert held == sorted(held)


@pytest.mark.parametrize(
    ("steps", "lead", "held"),
    [
        ([("event", "A", "", 0), ("event", "B", "", 5), ("merge", "B", "A", 0)], "A", []),
        ([("merge", "B", "A", 0), ("event", "A", "", 0), ("event", "B", "", 5)], "A", ["e02"]),
        (
            [
                ("merge", "B", "A", 0),
                ("event", "A", "", 0),
                ("event", "B", "", 5),
                ("part", "B", "", 0),
            ],
            "B",
            ["e02"],
        ),
        (
            [
                ("merge", "B", "A", 0),
                ("event", "B", "", 0),
                ("part", "B", "", 0),
                ("event", "A", "", 5),
                ("event", "B", "", 5),
            ],
            "A",
            [],
        ),
        (
            [
                ("merge", "B", "A", 0),
                ("event", "B", "", 0),
                ("part", "B", "", 0),
                ("event", "B", "", 5),
            ],
            "B",
            ["e03"],
        ),
    ],
)
def test_a_merge_makes_nothing_exceed_that_came_before_it_and_an_unmerge_takes_nothing_back(
    steps: list[Step], lead: str, held: list[str]
) -> None:
    """A verdict is never revised; what comes later is judged among those who are one by then."""
    history = History(keep_first(1, 10))
    history.happen(steps)
    assert [event_id for _, event_id, _ in history.folded(lead)] == held


def test_leads_that_are_joined_to_another_one_by_one_all_count() -> None:
    """Whoever of them has more events, and wherever these lie."""
    history = History(keep_first(5, 1_000))
    for lead, other in zip("BCDE", "AAAA", strict=True):
        history.happen([("event", lead, "", 100 * n % 700) for n in range(2)])
        history.happen([("event", "A", "", 10), ("merge", lead, other, 0)])
    history.happen([("event", "E", "", 700)])
    assert [event_id for _, event_id, _ in history.folded("A")] == sorted(history.bursts)


class Counted(Fold):
    """Notes whenever what leads have together is made anew."""

    def __init__(self, velocity: VelocityFilter, links: Sequence[Link]) -> None:
        super().__init__(velocity, links)
        self.anew: list[Set[str]] = []

    def _make_anew(self, roots: Set[str]) -> None:
        self.anew.append(roots)
        super()._make_anew(roots)


def test_of_merges_and_unmerges_between_two_events_only_what_they_come_to_is_made() -> None:
    """Each unmerge of a lead with a million events would cost as much as all of these."""
    sources = [f"source {n}" for n in range(50)]
    unmerges: list[Link] = [(2 + n, [source], None) for n, source in enumerate(sources)]
    again: Link = (100, sources[:25], "B")
    fold = Counted(keep_first(1, 10), [(0, sources, "A"), *unmerges, again])
    fold.add([(0, "e0", "A", 1), (5, "e1", sources[0], 1), (5, "e2", sources[30], 101)])
    assert fold.anew == [{"A", "B", *sources[25:]}]
    fold.add([(6, "e3", sources[1], 102), (12, "e4", "A", 102)])
    assert [i for _, i, _ in fold.exceeding(["A", "B", *sources])] == ["e1", "e3"]
    assert len(fold.anew) == 1
