"""What `make bench ARGS=growth` and `ARGS=memory` say of numbers: which growth is as it must be, and what is flat."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from processor.bench.traffic import traffic, verdicts
from tests.bench.growth_chart import chart
from tests.bench.growth_results import faults, slowed, table
from tests.bench.growth_rules import Cost, Rule
from tests.bench.growth_runs import Measured
from tests.bench.growth_series import SERIES
from tests.bench.growth_traffic import Before, Shape, Velocity, shaped
from tests.bench.memory_rules import most_members, trend

START_MS = 1_767_268_800_000
PARTS = {"worker": 30.0, "kafka": 10.0, "redis": 5.0, "postgres": 15.0}
POINT = Measured("1", 1, 1_000, 10_000.0, PARTS, 1_000, 0, 0, 100, 0)
FLAT = next(series for series in SERIES if series.name == "partitions")


def costs(*pairs: tuple[float, float]) -> list[Cost]:
    """Of pairs of what is varied and µs."""
    return [Cost(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("rule", "grown", "holds"),
    [
        (Rule("flat", 1.5), costs((1, 60), (10, 70), (100, 65)), True),
        (Rule("flat", 1.5), costs((1, 60), (10, 95), (100, 65)), False),
        (Rule("logarithmic", 1.5), costs((0, 60), (10**6, 80), (10**7, 110)), True),
        (Rule("logarithmic", 1.5), costs((0, 60), (10**6, 80), (10**7, 130)), False),
        (Rule("logarithmic", 1.5), costs((1, 10), (100, 22)), True),
        (Rule("linear", 1.5), costs((1, 60), (10, 78), (100, 260), (1_000, 2_100)), True),
        (Rule("linear", 1.5), costs((1, 60), (10, 58), (100, 150), (1_000, 1_100)), True),
        (Rule("linear", 1.5), costs((1, 60), (10, 78), (100, 260), (1_000, 20_000)), False),
    ],
)
def test_growth_is_judged_by_what_it_must_be(rule: Rule, grown: list[Cost], holds: bool) -> None:
    """Noise passes, and growth of another order does not."""
    assert rule.judge(grown).holds == holds


def test_what_is_wrong_slow_or_dear_is_a_fault() -> None:
    """Each by itself."""
    dear = replace(POINT, cpu={part: 2 * micros for part, micros in PARTS.items()})
    assert faults(FLAT, [POINT, POINT]) == []
    assert faults(FLAT, [POINT, dear]) == ["CPU grows faster than it must"]
    assert faults(FLAT, [POINT, replace(POINT, events_s=4_000)]) == [
        "throughput falls more than it must"
    ]
    assert faults(FLAT, [POINT, replace(POINT, wrong=2)]) == ["2 rows or messages are wrong"]
    assert slowed([POINT, replace(POINT, events_s=4_000)]) == 2.5


def test_the_table_says_what_must_be_and_what_is() -> None:
    """Below the points."""
    dear = replace(POINT, label="64", cpu={part: 2 * micros for part, micros in PARTS.items()})
    lines = table(FLAT, [POINT, dear]).splitlines()
    assert "| 64 | 10,000 | 60.0 | 20.0 | 10.0 | 30.0 | 120.0 | 2.00 |" in lines[5]
    assert lines[-1].endswith("it is 2 ×: CPU GROWS FASTER THAN IT MUST.")


def test_the_chart_has_a_panel_for_each_series() -> None:
    """With a line for each part and one for all of them; a logarithmic axis where it takes one."""
    dear = replace(POINT, cpu={part: 500 * micros for part, micros in PARTS.items()})
    points = {"one": [POINT, POINT], "other": [POINT, dear]}
    picture = ElementTree.fromstring(chart(points, {"one": "a < b", "other": "c"}))
    lines = [one for one in picture.iter() if one.tag.endswith("polyline")]
    marks = [one.text for one in picture.iter() if one.tag.endswith("text")]
    assert len(lines) == 2 * (len(PARTS) + 1)
    assert {"a < b", "10,000", "10,000/s"} <= {*marks}


def test_every_series_ascends_and_has_points_to_compare() -> None:
    """Names are what `--series` takes."""
    assert len({series.name for series in SERIES}) == len(SERIES)
    for series in SERIES:
        xs = [point.x for point in series.points]
        assert len(xs) > 1
        assert xs == sorted(xs)


def test_a_shape_as_it_is_by_default_is_the_traffic_of_the_bench() -> None:
    """The same ids, leads and verdicts."""
    plain, same = traffic(20_000, START_MS, 3), shaped(Shape(), 20_000, START_MS, 3)
    assert verdicts(same) == verdicts(plain)
    assert [one.value for one in same] == [one.value for one in plain]


def test_a_share_of_the_traffic_is_of_one_lead_where_that_is_asked_for() -> None:
    """And what came twice comes twice alike."""
    sent = shaped(Shape(org_units=1_000, hot=0.9), 5_000, START_MS, 1)
    hot = sum(json.loads(one.value)["lead_id"] == "ld_0" for one in sent)
    assert 0.88 < hot / len(sent) < 0.93
    assert len({(one.id, one.value) for one in sent}) == len(verdicts(sent)) < len(sent)


def test_what_any_of_many_filters_says_counts() -> None:
    """The brute force looks at each of them."""
    many = [Velocity("Page View", 10_000, 1_000), Velocity("Page View", 0, 1)]
    reasons = {one.reason for one in shaped(Shape(velocity=many), 1_000, START_MS, 1)}
    assert "inorganic" in reasons


def test_what_is_stored_before_counts_as_far_as_windows_reach() -> None:
    """As the product counts it."""
    event = json.loads(shaped(Shape(), 1, START_MS, 1)[0].value)
    filters = Shape(velocity=[Velocity(event["event_type"], 1, 1_000)])
    for ago, reason in ((999, "inorganic"), (1_000, None)):
        before = Before(event["lead_id"], event["event_type"], START_MS - ago)
        assert shaped(filters, 1, START_MS, 1, [before])[0].reason == reason


def test_memory_that_has_come_to_rest_is_flat() -> None:
    """However it grew before, and whatever single samples say; what goes on growing is not."""
    events = [n * 10_000 for n in range(101)]
    rests = [100 + min(n, 40) + 30 * (n % 17 == 0) for n in range(101)]
    assert trend(events, rests).flat
    assert not trend(events, [100 + n for n in range(101)]).flat
    assert trend(events, [100 + n for n in range(101)]).grown == pytest.approx(50)


def test_a_window_holds_two_ends_of_each_slice_that_may_be_asked_for() -> None:
    """N + 1 each."""
    assert most_members(20, 60_000, 3_600_000) == 2 * 21 * 63
    assert most_members(0, 86_400_000, 3_600_000) == 2 * 4
