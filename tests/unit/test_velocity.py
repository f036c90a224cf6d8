"""The fold, rule by rule: what it says of a batch and what the batch does to windows."""

from typing import Any

import pytest
from msgspec.structs import replace

from processor.pure.types import Facts, Ruling, Seen, VelocityFilter
from processor.pure.velocity import decide
from tests.unit.decision_records import CALM, NOTHING, a_case, a_filter, an_attribute, an_event


def reasons(velocity: VelocityFilter, *times: int) -> list[str | None]:
    """Verdicts on a batch of new events that begins everything."""
    cases = [a_case(an_event(f"e{n}", t), velocity) for n, t in enumerate(times)]
    return [ruling.reason for ruling in decide(cases, [[NOTHING]] * len(cases), {}, 1)]


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
    first, second, third = decide(cases, [[NOTHING]] * 3, {}, 1)
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
    ruling = only(decide([case], [[NOTHING]], {}, 1))
    named = {"filter_id": "mf", "filter_version": 3, "filter_name": "Name of mf"}
    assert (ruling.reason, ruling.suppressed_by) == ("metadata_filter", named)


def test_velocity_is_stronger_than_attributes() -> None:
    """But the first of a burst is what its attributes say."""
    for keep_first, expected in ((False, "inorganic"), (True, "metadata_filter")):
        velocity = a_filter(threshold=0, keep_first=keep_first)
        case = a_case(an_event(), velocity, matched=an_attribute())
        assert only(decide([case], [[NOTHING]], {}, 1)).reason == expected


def test_an_event_that_enters_no_window_is_organic() -> None:
    """Its case says so, and its facts do."""
    case = a_case(an_event())
    ruling = only(decide([case], [[]], {}, 1))
    assert (ruling.reason, ruling.suppressed_by, ruling.facts.exceeded) == (None, None, {})


def test_a_calm_window_says_nothing_and_the_others_do() -> None:
    """Its answers are left out; attributes and the other filters are as ever."""
    calm, strict = a_filter("a", 1, threshold=0, keep_first=True), a_filter("b", 2, threshold=0)
    ruling = only(decide([a_case(an_event(), calm, strict)], [[CALM, NOTHING]], {}, 4))
    assert (ruling.reason, ruling.facts) == ("inorganic", Facts(True, 4, {}))
    ruling = only(decide([a_case(an_event(), calm)], [[CALM]], {}, 4))
    assert (ruling.reason, ruling.facts) == (None, Facts(True, 4, {}))
    case = a_case(an_event(), calm, matched=an_attribute())
    assert only(decide([case], [[CALM]], {}, 4)).reason == "metadata_filter"


def test_an_event_that_is_not_counted_says_so_in_its_facts() -> None:
    """It enters no window, so that none has anything to say of it."""
    case = replace(a_case(an_event()), counted=False)
    assert only(decide([case], [[]], {}, 4)).facts == Facts(False, 4, {})


def test_a_known_event_in_a_calm_window_keeps_its_facts() -> None:
    """So do those beside it."""
    cases = [a_case(an_event(event_id), a_filter()) for event_id in ("a", "b")]
    stored = Facts(counted=True, rules=1, exceeded={8: "x"})
    first, second = decide(cases, [[CALM]] * 2, {("acme", "a"): stored}, 4)
    assert (first.facts, second.facts) == (stored, Facts(True, 4, {}))


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
    *_, ruling = decide(cases, [[NOTHING] * len(watching)] * 2, {}, 1)
    assert ruling.suppressed_by is not None
    assert (ruling.reason, ruling.suppressed_by["filter_id"]) == winner


def test_the_first_of_a_burst_that_another_filter_suppresses_passes_its_place_to_nobody() -> None:
    """Null is only one filter's opinion."""
    keeping = a_filter("a", 1, threshold=1, keep_first=True)
    strict = a_filter("b", 2, threshold=1, window_ms=2)
    cases = [a_case(an_event(f"e{n}", t), keeping, strict) for n, t in enumerate((0, 1, 5))]
    said = [ruling.reason for ruling in decide(cases, [[NOTHING] * 2] * 3, {}, 1)]
    assert said == [None, "inorganic", "inorganic_grouped"]


@pytest.mark.parametrize(
    ("other", "revision"),
    [({"lead_id": "B"}, 1), ({"org_unit": "other"}, 1), ({"event_type": "Other"}, 2)],
)
def test_windows_of_a_batch_are_told_apart(other: dict[str, Any], revision: int) -> None:
    """By org unit, surviving lead and filter."""
    watching = a_filter(), a_filter(revision=revision)
    cases = [a_case(an_event("a"), watching[0]), a_case(an_event("b", **other), watching[1])]
    assert [ruling.reason for ruling in decide(cases, [[NOTHING]] * 2, {}, 1)] == [None, None]


def test_leads_that_are_one_share_a_window() -> None:
    """The surviving lead counts, not the one named."""
    cases = [a_case(an_event(lead, lead_id=lead), a_filter(), root="A") for lead in ("A", "B")]
    assert [r.reason for r in decide(cases, [[NOTHING]] * 2, {}, 1)] == [None, "inorganic"]


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
    first, second = decide(cases, [[NOTHING]] * 2, {("acme", "a"): stored}, 9)
    assert first.facts is stored
    assert (second.reason, second.facts.exceeded) == (None, {3: "b"})
    stored = Facts(counted=True, rules=1, exceeded={3: "old"})
    first, second = decide(cases, [[NOTHING]] * 2, {("acme", "a"): stored}, 9)
    assert first.facts is stored
    assert (second.reason, second.facts.exceeded) == ("inorganic_grouped", {3: "old"})
    assert second.facts.rules == 9


def test_a_known_event_may_have_exceeded_what_it_does_not_exceed_now() -> None:
    """Its stored burst counts."""
    velocity = a_filter(threshold=1, keep_first=True)
    cases = [a_case(an_event(event_id), velocity) for event_id in ("a", "b")]
    stored = Facts(counted=True, rules=1, exceeded={1: "old"})
    *_, second = decide(cases, [[NOTHING]] * 2, {("acme", "a"): stored}, 1)
    assert second.facts.exceeded == {1: "old"}


def test_only_the_event_of_that_org_unit_is_known() -> None:
    """Ids are the producer's."""
    stored = Facts(counted=True, rules=0, exceeded={})
    ruling = only(
        decide([a_case(an_event("a"), a_filter())], [[NOTHING]], {("other", "a"): stored}, 2)
    )
    assert ruling.facts.rules == 2


def test_a_burst_seen_in_the_past_comes_first() -> None:
    """Any burst nearby will do; none is taken from a window where it was not seen."""
    velocity = a_filter(threshold=0, keep_first=True)
    seen = Seen(0, cached=False, from_store=False, stored=False, burst_id="past")
    ruling = only(decide([a_case(an_event(), velocity)], [[seen]], {}, 1))
    assert (ruling.reason, ruling.facts.exceeded) == ("inorganic_grouped", {1: "past"})


@pytest.mark.parametrize(
    "seen", [[], [[NOTHING], [NOTHING]], [[NOTHING, NOTHING]], [[]], [[CALM, CALM]]]
)
def test_answers_that_do_not_fit_the_cases_are_a_defect(seen: list[list[Seen]]) -> None:
    """Nothing is judged by half of what was asked."""
    with pytest.raises(ValueError, match="zip"):
        decide([a_case(an_event(), a_filter())], seen, {}, 1)
