"""The fold against brute force: what it says of a batch is what the rules say of each event, one after the other."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from processor.pure.types import Facts, Ruling, Seen, VelocityFilter
from processor.pure.velocity import decide
from tests.unit.decision_records import CALM, NOTHING, a_case, a_filter, an_event


@dataclass
class Truth:
    """One filter and one lead: every event so far, and which of them exceeded.  Looks at all of them each time."""

    velocity: VelocityFilter
    members: list[tuple[str, int]] = field(default_factory=list)
    exceeding: list[tuple[str, int, str]] = field(default_factory=list)

    def count(self, at: int) -> int:
        """Members in (at − window, at]."""
        return sum(at - self.velocity.window_ms < t <= at for _, t in self.members)

    def bursts(self, event_id: str, at: int) -> set[str]:
        """Bursts of other exceeding events less than a window away."""
        width = self.velocity.window_ms
        return {b for i, t, b in self.exceeding if i != event_id and abs(t - at) < width}

    def judge(self, event_id: str, at: int) -> tuple[int, bool, set[str]]:
        """Count, whether it exceeds, and the bursts it may join, of a new event that is now a member."""
        self.members.append((event_id, at))
        count = self.count(at)
        return count, count > self.velocity.threshold, self.bursts(event_id, at)


@st.composite
def filters(draw: st.DrawFn) -> list[VelocityFilter]:
    """One to three filters on one type, ascending by id."""
    return [
        a_filter(
            f"f{n}",
            n,
            threshold=draw(st.integers(0, 4)),
            window_ms=draw(st.integers(1, 12)),
            keep_first=draw(st.booleans()),
        )
        for n in range(draw(st.integers(1, 3)))
    ]


times = st.lists(st.integers(-20, 20), max_size=14)


@given(watching=filters(), past=times, batch=times, floor=st.integers(-40, 20), data=st.data())
def test_a_batch_is_judged_as_if_its_events_came_one_by_one(
    watching: list[VelocityFilter],
    past: list[int],
    batch: list[int],
    floor: int,
    data: st.DataObject,
) -> None:
    """Whatever was committed before, however much of it Redis holds, and wherever each event is judged.

    The last of the past are redelivered: they are stored, Redis may hold them or not, and their facts are known.
    """
    again = data.draw(st.integers(0, len(past)))
    events = [(f"p{n}", t) for n, t in enumerate(past)] + [
        (f"b{n}", t) for n, t in enumerate(batch)
    ]
    first = len(past) - again
    uncached = {i for i, _ in events[first : len(past)] if data.draw(st.booleans())}
    folds = [_Fold(velocity, dict(events[: len(past)]), uncached, floor) for velocity in watching]
    exceeded = [_exceeded(folds, *event) for event in events[: len(past)]]
    asked = events[first:]
    cases = [a_case(an_event(i, t), *watching) for i, t in asked]
    calm = [fold.may_be_calm([t for _, t in asked]) and data.draw(st.booleans()) for fold in folds]
    seen = [
        [CALM if quiet else fold.seen(*event) for fold, quiet in zip(folds, calm, strict=True)]
        for event in asked
    ]
    known = {
        ("acme", events[n][0]): Facts(counted=True, rules=1, exceeded=exceeded[n])
        for n in range(first, len(past))
    }
    rulings = decide(cases, seen, known, 1)
    for (event_id, at), ruling in list(zip(asked, rulings, strict=True))[again:]:
        _check(folds, event_id, at, ruling)


class _Fold:
    """One filter's truth, and what windows see of it: the past, but for what Redis has not got."""

    def __init__(
        self, velocity: VelocityFilter, past: dict[str, int], uncached: set[str], floor: int
    ) -> None:
        self.velocity = velocity
        self.truth = Truth(velocity)
        self._past, self._uncached, self._floor = past, uncached, floor

    def may_be_calm(self, times: list[int]) -> bool:
        """Nothing of the batch is late, and all of it with all that is held is not too much."""
        velocity = self.velocity
        held = sum(i not in self._uncached and t > self._floor for i, t in self._past.items())
        early = min(times, default=0) - velocity.window_ms >= self._floor
        return early and held + len(times) <= velocity.threshold

    def seen(self, event_id: str, at: int) -> Seen:
        velocity = self.velocity
        late = at - velocity.window_ms < self._floor
        held = {
            i: t
            for i, t in self._past.items()
            if late or (i not in self._uncached and t > self._floor)
        }
        near = {
            burst
            for i, t, burst in self.truth.exceeding
            if i in held and i != event_id and abs(t - at) < velocity.window_ms
        }
        return Seen(
            count=min(
                velocity.threshold + 1,
                sum(at - velocity.window_ms < t <= at for t in held.values()),
            ),
            cached=event_id in self._past and event_id not in self._uncached and at > self._floor,
            from_store=late,
            stored=event_id in self._past,
            burst_id=min(near, default=None) if velocity.keep_first else None,
        )


def _exceeded(folds: list[_Fold], event_id: str, at: int) -> dict[int, str]:
    """What an event of the past did to the windows of keep-first filters."""
    did = {}
    for fold in folds:
        _, exceeds, bursts = fold.truth.judge(event_id, at)
        if exceeds and fold.velocity.keep_first:
            burst = min(bursts, default=event_id)
            fold.truth.exceeding.append((event_id, at, burst))
            did[fold.velocity.revision] = burst
    return did


def _check(folds: list[_Fold], event_id: str, at: int, ruling: Ruling) -> None:
    """One new event: verdict, who is named, the count, and the burst it joins."""
    said: list[tuple[str | None, VelocityFilter, int]] = []
    for fold in folds:
        velocity = fold.velocity
        count, exceeds, bursts = fold.truth.judge(event_id, at)
        burst = ruling.facts.exceeded.get(velocity.revision)
        assert (burst is not None) == (exceeds and velocity.keep_first)
        if burst is not None:
            assert burst in (bursts or {event_id})
            fold.truth.exceeding.append((event_id, at, burst))
        if exceeds:
            grouped = "inorganic_grouped" if bursts else None
            said.append((grouped if velocity.keep_first else "inorganic", velocity, count))
    for reason in ("inorganic", "inorganic_grouped"):
        for given_reason, velocity, count in said:
            if given_reason == reason:
                assert ruling.reason == reason
                _check_provenance(ruling, velocity, count)
                return
    assert (ruling.reason, ruling.suppressed_by) == (None, None)


def _check_provenance(ruling: Ruling, velocity: VelocityFilter, count: int) -> None:
    by = ruling.suppressed_by
    assert by is not None
    assert by["filter_id"] == velocity.id
    told = by["count"]
    assert isinstance(told, int)
    assert velocity.threshold < told <= count
    assert by.get("burst_id") == ruling.facts.exceeded.get(velocity.revision)


@given(times=st.lists(st.integers(0, 60), max_size=25), cuts=st.sets(st.integers(0, 25)))
def test_batches_may_be_cut_anywhere(times: list[int], cuts: set[int]) -> None:
    """Where Redis holds all that came before, the verdicts are those of one batch."""
    velocity = a_filter(threshold=2, keep_first=True)
    events = [(f"e{n}", t) for n, t in enumerate(times)]
    whole = [[NOTHING]] * len(events)
    expected = [
        r.reason for r in decide([a_case(an_event(*e), velocity) for e in events], whole, {}, 1)
    ]
    said: list[str | None] = []
    truth = Truth(velocity)
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in pairwise(edges):
        batch = events[start:end]
        cases = [a_case(an_event(*event), velocity) for event in batch]
        seen = [[_held(truth, *event)] for event in batch]
        rulings = decide(cases, seen, {}, 1)
        said += [ruling.reason for ruling in rulings]
        truth.members += batch
        for (event_id, at), ruling in zip(batch, rulings, strict=True):
            truth.exceeding += [(event_id, at, burst) for burst in ruling.facts.exceeded.values()]
    assert said == expected


def _held(truth: Truth, event_id: str, at: int) -> Seen:
    near = min(truth.bursts(event_id, at), default=None)
    count = min(truth.count(at), truth.velocity.threshold + 1)
    return Seen(count, cached=False, from_store=False, stored=False, burst_id=near)
