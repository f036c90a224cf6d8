"""What `processor bench` and `make bench` compare: the same traffic for all, verdicts by brute force, ratios within a round."""

from dataclasses import replace
from xml.etree import ElementTree

from processor.bench.checking import unlike
from processor.bench.contenders import Kind
from processor.bench.results import PARTS, beside, chart, failed, ratios, table
from processor.bench.runs import Result
from processor.bench.traffic import VELOCITY, traffic, verdicts

START_MS = 1_767_268_800_000
RUN = Result("floor", Kind.FLOOR.value, 10, 1_000.0, 1.5, dict.fromkeys(PARTS, 10.0), 100, 0)


def rounds(*events_s: tuple[float, float]) -> list[dict[str, Result]]:
    """Rounds of the floor and one contender with these throughputs."""
    return [
        {
            "floor": replace(RUN, events_s=floor),
            "worker": replace(RUN, contender="worker", kind=Kind.OWN.value, events_s=own),
        }
        for floor, own in events_s
    ]


def test_the_traffic_is_the_same_bytes_each_time() -> None:
    """Whatever is compared has read the same."""
    assert traffic(2_000, START_MS) == traffic(2_000, START_MS)
    assert traffic(2_000, START_MS) != traffic(2_000, START_MS, seed=2)


def test_the_traffic_has_every_verdict_and_messages_that_come_twice() -> None:
    """What has to be decided is there to be decided wrongly."""
    sent = traffic(20_000, START_MS)
    assert {*verdicts(sent).values()} == {None, "inorganic", "metadata_filter"}
    assert len(verdicts(sent)) < len(sent)
    assert {one.key for one in sent if one.reason == "inorganic"}
    assert min(most for most, _ in VELOCITY.values()) > 0


def test_ratios_are_within_a_round() -> None:
    """The machine is another one from round to round."""
    assert ratios(rounds((1_000, 500), (4_000, 3_000)), "worker") == [0.5, 0.75]


def test_the_worker_is_compared_with_a_rival_within_a_round() -> None:
    """Its throughput, its CPU and that of all parts."""
    done = rounds((1_000, 500), (4_000, 3_000))
    cpu = {**RUN.cpu, "worker": 30.0}
    for one in done:
        one["rival"] = replace(one["floor"], contender="rival", kind=Kind.RIVAL.value, cpu=cpu)
    (line,) = beside(done).splitlines()[2:]
    said = "0.62 [0.50–0.75] | 0.33 [0.33–0.33] | 0.67 [0.67–0.67]"
    assert line == f"| worker ÷ rival | {said} |"


def test_what_a_rival_does_wrong_is_told_and_what_the_worker_does_fails() -> None:
    """The rest is for whoever reads the table."""
    done = rounds((1_000, 500))
    done[0]["rival"] = replace(RUN, contender="rival", kind=Kind.RIVAL.value, wrong=3)
    assert not failed(done)
    assert table(done).splitlines()[-1].endswith("| 3 |")
    done[0]["worker"] = replace(done[0]["worker"], wrong=1)
    assert failed(done)


def test_what_is_missing_too_many_or_another_verdict_is_wrong() -> None:
    """No verdict is one, too."""
    assert unlike({"a": None, "b": "inorganic"}, {"a": None, "b": "inorganic"}) == 0
    assert unlike({"a": None, "b": "inorganic"}, {"b": None, "c": None}) == 3


def test_the_table_has_medians_and_the_range_of_ratios() -> None:
    """A line for each contender."""
    lines = table(rounds((1_000, 500), (4_000, 3_000), (1_000, 700))).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| floor", "| worker"]
    assert "| 700 | 0.70 [0.50–0.75] | 10.0 | 10.0 | 10.0 | 10.0 | 40.0 |" in lines[3]


def test_the_chart_has_a_bar_for_each_part_of_each_contender() -> None:
    """And is a picture."""
    picture = ElementTree.fromstring(chart(rounds((1_000, 500))))
    bars = [one for one in picture.iter() if one.tag.endswith("rect")]
    assert len(bars) == len(PARTS) * 3
