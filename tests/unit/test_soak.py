"""The parts of a soak that decide: what strikes, and whether something grows."""

from itertools import islice
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.soak_chart import drawn
from tests.faults.soak_faults import BAG, LASTING, LONGEST_S, SERVERS, SHORTEST_S, schedule
from tests.faults.soak_flat import LONG_MIN, Bound, growth, theil_sen
from tests.faults.soak_samples import Sample, Use
from tests.faults.tail import percentile

BOUND = Bound(slack=10, hourly=30)
HALF_HOUR = [n / 12 for n in range(360)]
SHORT = [minute for minute in HALF_HOUR if minute < LONG_MIN]


@given(st.integers())
def test_a_seed_names_its_faults(seed: int) -> None:
    """Two schedules of a seed are the same."""
    assert list(islice(schedule(seed), 60)) == list(islice(schedule(seed), 60))


@given(st.integers(), st.integers(0, 3))
def test_every_fault_comes_before_any_comes_again(seed: int, turn: int) -> None:
    """Each bag holds every fault as often as it is named."""
    bag = list(islice(schedule(seed), turn * len(BAG), (turn + 1) * len(BAG)))
    assert sorted((fault.kind, fault.target) for fault in bag) == sorted(BAG)
    assert all(SHORTEST_S <= fault.lasts_s <= LONGEST_S for fault in bag)


def test_what_lives_through_the_soak_is_only_frozen() -> None:
    """Everything else may be ended, and servers come back."""
    assert {kind for kind, target in BAG if target in LASTING} == {"freeze"}
    assert {target for kind, target in BAG if kind == "crash"} == set(SERVERS)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_slope_of_a_line_is_its_own(slope: float, start: float) -> None:
    """Whatever it begins with."""
    found = theil_sen(HALF_HOUR, [start + slope * minute for minute in HALF_HOUR])
    assert found == pytest.approx(slope, abs=1e-6)


@given(st.sets(st.integers(0, 359), max_size=60), st.floats(-1e6, 1e6))
def test_few_samples_do_not_move_a_slope(wrong: set[int], value: float) -> None:
    """A sixth of them may be anything."""
    values = [value if n in wrong else 80.0 for n in range(360)]
    assert theil_sen(HALF_HOUR, values) == 0


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        pytest.param([80.0] * 360, True, id="level"),
        pytest.param([60.0] * 90 + [95.0] * 270, True, id="a step while it warms up"),
        pytest.param([80.0 + n % 7 for n in range(360)], True, id="noise"),
        pytest.param([80.0 + 400 * (n % 50 == 0) for n in range(360)], True, id="peaks"),
        pytest.param([80.0 + n / 12 for n in range(360)], False, id="1 MB a minute"),
        pytest.param([80.0] * 180 + [100.0] * 180, False, id="a step in the middle"),
        pytest.param([300.0 + n / 15 for n in range(360)], False, id="a slope within the tenth"),
    ],
)
def test_half_an_hour_is_flat_or_not(values: list[float], flat: bool) -> None:
    """A tenth and the slack from the second quarter to the last, and the slope of the second half."""
    assert growth(HALF_HOUR, values, BOUND).flat == flat


def test_the_slope_of_minutes_says_nothing_about_an_hour() -> None:
    """A short soak is judged by its quarters alone."""
    values = [80 + minute for minute in SHORT]
    found = growth(SHORT, values, BOUND)
    assert found.flat
    assert found.hourly == pytest.approx(60)


def test_a_picture_has_a_line_for_each_process() -> None:
    """In each panel but that of the lag, which has one."""
    use = Use(80.5, 8, 2, 3)
    samples = [
        Sample(0.1, 100, 5, {"worker-0": use, "api": use}),
        Sample(0.2, 200, None, {"worker-0": use, "worker-1": use, "api": use}),
    ]
    lines = fromstring(drawn(samples, [0.15])).iter("{http://www.w3.org/2000/svg}polyline")
    names = [line[0].text for line in lines]
    assert sorted(map(str, names)) == sorted(["lag", *["worker-0", "worker-1", "api"] * 4])


@given(st.lists(st.integers(), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_least_that_so_many_are_at_most(
    values: list[int], share: float
) -> None:
    """One of the values themselves."""
    ordered = sorted(map(float, values))
    found = percentile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < share * len(ordered)
