"""The fold against brute force: what it says of a batch is what the rules say of each event, one after the other."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure.types import Facts, Ruling, Seen, VelocityFilter
from processor.pure.velocity import decide
from tests.unit.decision_records import CALM, a_case, a_filter, an_attribute, an_event


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


def reasons(velocity: VelocityFilter, *times: int) -> list[str | None]:
    """Verdicts on a batch of new events that begins everything."""
    cases = [a_case(an_event(f"e{n}", t), velocity) for n, t in enumerate(times)]
    return [ruling.reason for ruling in decide(cases, [[CALM]] * len(cases), {}, 1)]


def only(ruling_list: list[Ruling]) -> Ruling:
    """The one ruling."""
    (ruling,) = ruling_list
    return ruling


@pytest.mark.parametrize(
    ("threshold", "times", "expected"),
    [
        (1, (0, 9), [None, "inorganic"]),
        (1, (0, 10), [None, None]),
        (1, (9, 0), [None, None]),
        (1, (5, 5), [None, "inorganic"]),
        (0, (0,), ["inorganic"]),
        (0, (0, 100), ["inorganic", "inorganic"]),
        (2, (0, 1, 2, 3), [None, None, "inorganic", "inorganic"]),
        (2, (0, 5, 12), [None, None, None]),
        (2, (-7, -1, 2), [None, None, "inorganic"]),
    ],
)
def test_more_than_the_threshold_within_the_window_is_too_much(
    threshold: int, times: tuple[int, ...], expected: list[str | None]
) -> None:
    """The window is (t − 10, t]; what came later but happened earlier counts, too."""
    assert reasons(a_filter(threshold=threshold), *times) == expected


@pytest.mark.parametrize(
    ("threshold", "times", "expected"),
    [
        (0, (0, 9), [None, "inorganic_grouped"]),
        (0, (0, 10), [None, None]),
        (0, (9, 0), [None, "inorganic_grouped"]),
        (0, (10, 0), [None, None]),
        (0, (0, 9, 18, 27, 37), [None, *["inorganic_grouped"] * 3, None]),
        (0, (0, 18, 9), [None, None, "inorganic_grouped"]),
        (1, (0, 1, 2), [None, None, "inorganic_grouped"]),
        (1, (0, 1, 10, 11), [None, None, "inorganic_grouped", "inorganic_grouped"]),
        (1, (0, 1, 11, 12), [None, None, None, None]),
    ],
)
def test_the_first_of_a_burst_scores(
    threshold: int, times: tuple[int, ...], expected: list[str | None]
) -> None:
    """The next, less than a window from any exceeding event on either side, do not."""
    assert reasons(a_filter(threshold=threshold, keep_first=True), *times) == expected


def test_a_burst_has_the_id_of_its_first_event() -> None:
    """All who join it carry it on, and the first says nothing of it but in its facts."""
    velocity = a_filter(threshold=0, keep_first=True, revision=4)
    cases = [a_case(an_event(f"e{n}", 9 * n), velocity) for n in range(3)]
    first, second, third = decide(cases, [[CALM]] * 3, {}, 1)
    assert (first.suppressed_by, first.facts.exceeded) == (None, {4: "e0"})
    for ruling in (second, third):
        assert ruling.suppressed_by is not None
        assert ruling.suppressed_by["burst_id"] == "e0"
        assert ruling.facts.exceeded == {4: "e0"}


def test_a_suppressed_event_names_filter_version_count_and_limits() -> None:
    """Without a burst where its filter knows none."""
    velocity = a_filter("vf-9", threshold=2, window_ms=20)
    seen = Seen(3, cached=False, from_store=False, stored=False, burst_id=None)
    ruling = only(decide([a_case(an_event(), velocity)], [[seen]], {}, 5))
    assert ruling.reason == "inorganic"
    assert ruling.suppressed_by == {
        "filter_id": "vf-9",
        "filter_version": 7,
        "filter_name": "Name of vf-9",
        "count": 4,
        "threshold": 2,
        "window_ms": 20,
    }
    assert ruling.facts == Facts(counted=True, rules=5, exceeded={})


def test_a_matched_event_names_its_attribute_filter() -> None:
    """Where no velocity filter says anything."""
    case = a_case(an_event(), a_filter(), matched=an_attribute())
    ruling = only(decide([case], [[CALM]], {}, 1))
    named = {"filter_id": "mf", "filter_version": 3, "filter_name": "Name of mf"}
    assert (ruling.reason, ruling.suppressed_by) == ("metadata_filter", named)


def test_velocity_is_stronger_than_attributes() -> None:
    """But the first of a burst is what its attributes say."""
    for keep_first, expected in ((False, "inorganic"), (True, "metadata_filter")):
        velocity = a_filter(threshold=0, keep_first=keep_first)
        case = a_case(an_event(), velocity, matched=an_attribute())
        assert only(decide([case], [[CALM]], {}, 1)).reason == expected


def test_an_event_that_enters_no_window_is_organic() -> None:
    """Its case says so, and its facts do."""
    case = a_case(an_event())
    ruling = only(decide([case], [[]], {}, 1))
    assert (ruling.reason, ruling.suppressed_by, ruling.facts.exceeded) == (None, None, {})


STRICT = {"threshold": 0, "keep_first": False}
KEEPING = {"threshold": 0, "keep_first": True}


@pytest.mark.parametrize(
    ("filters", "winner"),
    [
        ([STRICT, STRICT], ("inorganic", "f0")),
        ([KEEPING, STRICT], ("inorganic", "f1")),
        ([STRICT, KEEPING], ("inorganic", "f0")),
        ([KEEPING, KEEPING], ("inorganic_grouped", "f0")),
        ([{"threshold": 9}, KEEPING, KEEPING], ("inorganic_grouped", "f1")),
        ([KEEPING, KEEPING, STRICT], ("inorganic", "f2")),
    ],
)
def test_the_strongest_reason_wins_and_names_the_smallest_id_that_gave_it(
    filters: list[dict[str, Any]], winner: tuple[str, str]
) -> None:
    """Filters come ascending by id; the event is the second of each burst."""
    watching = [a_filter(f"f{n}", n, **fields) for n, fields in enumerate(filters)]
    cases = [a_case(an_event(event_id), *watching) for event_id in ("e", "f")]
    *_, ruling = decide(cases, [[CALM] * len(watching)] * 2, {}, 1)
    assert ruling.suppressed_by is not None
    assert (ruling.reason, ruling.suppressed_by["filter_id"]) == winner


def test_the_first_of_a_burst_that_another_filter_suppresses_passes_its_place_to_nobody() -> None:
    """Null is only one filter's opinion."""
    keeping = a_filter("a", 1, threshold=1, keep_first=True)
    strict = a_filter("b", 2, threshold=1, window_ms=2)
    cases = [a_case(an_event(f"e{n}", t), keeping, strict) for n, t in enumerate((0, 1, 5))]
    said = [ruling.reason for ruling in decide(cases, [[CALM] * 2] * 3, {}, 1)]
    assert said == [None, "inorganic", "inorganic_grouped"]


@pytest.mark.parametrize(
    "other", [{"lead_id": "B"}, {"org_unit": "other"}, {"event_type": "Other", "revision": 2}]
)
def test_windows_of_a_batch_are_told_apart(other: dict[str, Any]) -> None:
    """By org unit, surviving lead and filter."""
    revision = other.pop("revision", 1)
    cases = [
        a_case(an_event("a"), a_filter()),
        a_case(an_event("b", **other), a_filter(revision=revision)),
    ]
    assert [ruling.reason for ruling in decide(cases, [[CALM]] * 2, {}, 1)] == [None, None]


def test_leads_that_are_one_share_a_window() -> None:
    """The surviving lead counts, not the one named."""
    cases = [a_case(an_event(lead, lead_id=lead), a_filter(), root="A") for lead in ("A", "B")]
    assert [r.reason for r in decide(cases, [[CALM]] * 2, {}, 1)] == [None, "inorganic"]


@pytest.mark.parametrize("from_store", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_an_event_counts_itself_once(from_store: bool, held: bool) -> None:
    """Also where it is seen already, in the place it is judged from."""
    seen = Seen(
        1,
        cached=held != from_store,
        from_store=from_store,
        stored=held == from_store,
        burst_id=None,
    )
    ruling = only(decide([a_case(an_event(), a_filter())], [[seen]], {}, 1))
    assert ruling.reason == (None if held else "inorganic")


def test_what_one_place_has_not_seen_another_may_have() -> None:
    """A member stored but not cached counts for an event judged from Redis, not for one judged from the rows."""
    velocity = a_filter(threshold=1)
    member = Seen(0, cached=False, from_store=False, stored=True, burst_id=None)
    for from_store, expected in ((False, "inorganic"), (True, None)):
        other = Seen(0, cached=False, from_store=from_store, stored=False, burst_id=None)
        cases = [a_case(an_event("a"), velocity), a_case(an_event("b"), velocity)]
        assert decide(cases, [[member], [other]], {}, 1)[1].reason == expected
    member = Seen(1, cached=True, from_store=False, stored=False, burst_id=None)
    for from_store, expected in ((False, None), (True, "inorganic")):
        other = Seen(0, cached=False, from_store=from_store, stored=False, burst_id=None)
        cases = [a_case(an_event("a"), velocity), a_case(an_event("b"), velocity)]
        assert decide(cases, [[member], [other]], {}, 1)[1].reason == expected


def test_a_known_event_does_to_windows_what_its_row_says() -> None:
    """Whatever is computed now; those after it are judged by that."""
    velocity = a_filter(threshold=0, keep_first=True, revision=3)
    cases = [a_case(an_event(event_id), velocity) for event_id in ("a", "b")]
    stored = Facts(counted=True, rules=1, exceeded={})
    first, second = decide(cases, [[CALM]] * 2, {("acme", "a"): stored}, 9)
    assert first.facts is stored
    assert (second.reason, second.facts.exceeded) == (None, {3: "b"})
    stored = Facts(counted=True, rules=1, exceeded={3: "old"})
    first, second = decide(cases, [[CALM]] * 2, {("acme", "a"): stored}, 9)
    assert first.facts is stored
    assert (second.reason, second.facts.exceeded) == ("inorganic_grouped", {3: "old"})
    assert second.facts.rules == 9


def test_a_known_event_may_have_exceeded_what_it_does_not_exceed_now() -> None:
    """Its stored burst counts."""
    velocity = a_filter(threshold=1, keep_first=True)
    cases = [a_case(an_event(event_id), velocity) for event_id in ("a", "b")]
    stored = Facts(counted=True, rules=1, exceeded={1: "old"})
    *_, second = decide(cases, [[CALM]] * 2, {("acme", "a"): stored}, 1)
    assert second.facts.exceeded == {1: "old"}


def test_only_the_event_of_that_org_unit_is_known() -> None:
    """Ids are the producer's."""
    stored = Facts(counted=True, rules=0, exceeded={})
    ruling = only(
        decide([a_case(an_event("a"), a_filter())], [[CALM]], {("other", "a"): stored}, 2)
    )
    assert ruling.facts.rules == 2


def test_a_burst_seen_in_the_past_comes_first() -> None:
    """Any burst nearby will do; none is taken from a window where it was not seen."""
    velocity = a_filter(threshold=0, keep_first=True)
    seen = Seen(0, cached=False, from_store=False, stored=False, burst_id="past")
    ruling = only(decide([a_case(an_event(), velocity)], [[seen]], {}, 1))
    assert (ruling.reason, ruling.facts.exceeded) == ("inorganic_grouped", {1: "past"})


@pytest.mark.parametrize("seen", [[], [[CALM], [CALM]], [[CALM, CALM]], [[]]])
def test_answers_that_do_not_fit_the_cases_are_a_defect(seen: list[list[Seen]]) -> None:
    """Nothing is judged by half of what was asked."""
    with pytest.raises(ValueError, match="zip"):
        decide([a_case(an_event(), a_filter())], seen, {}, 1)


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
    seen = [[fold.seen(*event) for fold in folds] for event in asked]
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
    whole = [[CALM]] * len(events)
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
