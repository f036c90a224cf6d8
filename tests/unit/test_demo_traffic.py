"""The demo's traffic has everything in it that real life has, and its sample filters see it."""

from collections import Counter
from itertools import islice
from pathlib import Path

import yaml

from processor.demo import traffic as demo_traffic
from processor.demo.traffic import Sample, traffic
from tests.oracle import Oracle
from tests.oracle_parse import Message

START = 1_790_000_000_000
MAX_FUTURE_MS = 48 * 3_600_000
"""More than the default: what is too late for every setting depends on it."""


def _samples(count: int, rate: int) -> list[Sample]:
    """As somebody gets them who pulls ``rate`` a second."""
    pulled = iter(range(count + 1))
    clock = lambda: START + next(pulled) * 1000 // rate  # noqa: E731
    return list(islice(traffic(7, clock, MAX_FUTURE_MS), count))


def test_the_same_seed_and_clock_give_the_same_traffic() -> None:
    """So that a demo can be looked at again."""
    assert _samples(500, 100) == _samples(500, 100)


def test_every_sample_is_what_it_says_it_is() -> None:
    """Events are stored, duplicates known, bad ones dead: the demo's account depends on it."""
    oracle, fates = Oracle(max_future_ms=MAX_FUTURE_MS), Counter[tuple[str, str]]()
    for offset, sample in enumerate(_samples(6_000, 300)):
        message = Message(sample.topic, 0, offset, sample.timestamp, sample.key, sample.value)
        feed = oracle.feed if sample.topic == "raw" else oracle.merge
        fates[sample.kind, feed(message)] += 1
    merges = {("merge", "stored"), ("merge", "no_op")}
    expected = {("event", "stored"), ("duplicate", "duplicate"), ("bad", "dead")}
    assert expected < fates.keys() <= expected | merges
    assert sum(count for fate, count in fates.items() if fate in merges) in (5, 6)


def test_the_sample_filters_find_each_kind_of_machine() -> None:
    """Both kinds of filter, keep-first included, and most events are organic."""
    oracle = Oracle()
    document = Path(demo_traffic.__file__).with_name("filters.yaml")
    oracle.apply(yaml.safe_load(document.read_text(encoding="utf-8")))
    for offset, sample in enumerate(_samples(6_000, 300)):
        if sample.topic == "raw":
            place = "raw", 0, offset, sample.timestamp
            oracle.feed(Message(*place, sample.key, sample.value))
    reasons = Counter(row.reason for row in oracle.rows.values())
    assert reasons.keys() == {None, "inorganic", "inorganic_grouped", "metadata_filter"}
    assert reasons[None] > len(oracle.rows) / 2
    lateness = [(row.message.timestamp or 0) - row.raw.at for row in oracle.rows.values()]
    assert max(lateness) > 60_000
    assert min(lateness) >= 0
