"""Whom `make bench` compares with whom, over how many events."""

from pathlib import Path

import pytest

from processor.bench.contenders import FLOOR, OWN
from processor.bench.traffic import CONDITIONS, VELOCITY
from processor.failures import StartRefused
from tests.bench.compared import ALONE, RIVALS, comparisons, kept
from tests.bench.rivals.kstreams import JARS
from tests.bench.rivals.rules import rules


def test_without_a_rival_the_floor_and_the_worker_take_turns(tmp_path: Path) -> None:
    """As `processor bench` has it."""
    (alone,) = comparisons([], None, [], tmp_path)
    assert (alone.events, tuple(alone.contenders)) == (ALONE, (FLOOR, *OWN))


def test_a_rival_is_compared_over_as_many_events_as_it_needs(tmp_path: Path) -> None:
    """Unless somebody says how many."""
    (faust,) = comparisons(["faust"], None, [], tmp_path)
    assert [one.name for one in faust.contenders] == [
        "floor",
        "exactly_once",
        "at_least_once",
        "faust",
    ]
    assert faust.events == RIVALS["faust"][1] < RIVALS["kstreams"][1]
    assert [one.events for one in comparisons(["faust"], 5, [], tmp_path)] == [5]


def test_the_floor_is_in_every_comparison() -> None:
    """What all are compared with."""
    assert [one.name for one in kept((FLOOR, *OWN), ["at_least_once"])] == [
        "floor",
        "at_least_once",
    ]


def test_a_comparison_of_the_floor_alone_is_refused() -> None:
    """A name was misspelt."""
    with pytest.raises(StartRefused, match="none of exactly_once, at_least_once"):
        kept((FLOOR, *OWN), ["exactly_twice"])


def test_rivals_are_told_the_same_rules(tmp_path: Path) -> None:
    """Each velocity filter and each condition."""
    told = rules(tmp_path).read_text()
    assert all(f'"{name}"' in told for name in VELOCITY)
    assert all(f'"{value}"' in told for _, _, value in CONDITIONS)


def test_kafka_streams_is_of_the_brokers_version_and_each_of_its_jars_has_a_hash() -> None:
    """As the lock says."""
    lines = JARS.lock.read_text().splitlines()
    assert all(coordinate in "\n".join(lines) for coordinate in JARS.wanted.split("+"))
    assert all(len(line.split()[1]) == 64 for line in lines)
