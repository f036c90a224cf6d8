"""The watch over the engagement service: the lag it tells, what ends the process, and what it excuses."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from processor.engagement import UNWATCHED_S, Engagement, rules
from processor.engagement_watch import StalledError, Watch
from processor.failures import Retryable
from processor.io.engagement_store import Store
from processor.io.kafka import Cluster
from processor.pure.places import Standing
from processor.settings import Settings
from processor.waits import Waits

TOPIC = "watched.enriched"
LIMITS_S = 0.0, 0.0
"""Any second look is late."""


class FakeReader:
    """A membership with one partition, of which 4 records are counted."""

    def __init__(self) -> None:
        self.joined = True
        self.stands = Standing(end=9, position=9, last=8)
        self.place = 4
        self.away = False
        self.partitions: Sequence[int] = (0,)

    async def standing(self) -> Mapping[int, Standing]:
        if self.away:
            raise Retryable("kafka", "no answer")
        return dict.fromkeys(self.partitions, self.stands)

    async def places(self) -> Mapping[int, int]:
        return {0: self.place}


async def looked_at(reader: FakeReader, change: str = "", value: object = None) -> Waits:
    """Two looks, with a change in between."""
    waits = Waits()
    watch = Watch(TOPIC, reader.places, waits, LIMITS_S)
    await watch.look(reader)
    if change:
        setattr(reader, change, value)
    await watch.look(reader)
    return waits


def lag() -> float | None:
    """What the metric says."""
    labels = {"topic": TOPIC, "partition": "0"}
    return REGISTRY.get_sample_value("processor_lag_records", labels)


async def test_a_partition_that_is_not_counted_although_nothing_is_away_ends_the_process() -> None:
    """As does a membership that never gets its partitions."""
    with pytest.raises(StalledError, match="nothing away: 0"):
        await looked_at(FakeReader())
    assert lag() == 5
    reader = FakeReader()
    reader.joined = False
    with pytest.raises(StalledError, match="group"):
        await looked_at(reader)


async def test_what_was_fetched_and_is_never_counted_is_fetched_again() -> None:
    """From its place, at the second look that finds it there."""
    reader = FakeReader()
    watch = Watch(TOPIC, reader.places, Waits(), (0.0, 60.0))
    assert await watch.look(reader) == {}
    assert await watch.look(reader) == {0: 4}
    reader.place = 5
    assert await watch.look(reader) == {}
    reader.joined = False
    for _ in range(2):
        assert await watch.look(reader) == {}


async def test_progress_and_kafka_that_is_away_excuse_it() -> None:
    """What is away is told."""
    assert not (await looked_at(FakeReader(), "place", 5)).away
    assert "kafka" in (await looked_at(FakeReader(), "away", value=True)).away


async def test_a_reader_that_has_counted_all_there_is_is_well() -> None:
    """Also where the last offsets are a transaction's marker."""
    reader = FakeReader()
    reader.stands, reader.place = Standing(end=9, position=9, last=7), 8
    await looked_at(reader)
    assert lag() == 0


@pytest.mark.parametrize(("change", "value"), [("partitions", (1,)), ("joined", False)])
async def test_the_lag_of_partitions_that_it_no_longer_has_is_told_by_others(
    change: str, value: object
) -> None:
    """They are another member's, or nobody's while it has no membership."""
    reader = FakeReader()
    watch = Watch(TOPIC, reader.places, Waits())
    await watch.look(reader)
    assert lag() == 5
    setattr(reader, change, value)
    await watch.look(reader)
    assert lag() is None


@pytest.mark.parametrize(
    ("standing", "place", "lag"),
    [
        (Standing(end=0, position=0, last=-1), 0, 0),
        (Standing(end=10, position=10, last=9), 10, 0),
        (Standing(end=11, position=11, last=9), 10, 0),  # the last offset is a transaction's marker
        (Standing(end=11, position=11, last=9), 7, 4),  # fetched and not counted yet
        (Standing(end=30, position=11, last=9), 10, 20),
        (Standing(end=5, position=7, last=6), 7, 0),
        (Standing(end=5, position=5, last=2**63 - 1), 3, 2),
    ],
)
def test_a_partition_lags_while_a_record_is_not_counted(
    standing: Standing, place: int, lag: int
) -> None:
    """Markers behind the last record are none."""
    assert standing.lag(place) == lag


async def test_a_service_that_nobody_looks_after_is_dead() -> None:
    """What /healthz says then is one sentence; an outage is a look like any other."""
    now, reader = [0.0], FakeReader()
    nobody: Any = None
    service = Engagement(Cluster(Settings()), Store(nobody, TOPIC, rules(Settings())))
    service._watch = Watch(TOPIC, reader.places, Waits(), clock=lambda: now[0])
    now[0] = UNWATCHED_S
    assert service.dead() == []
    now[0] += 1
    assert service.dead() == ["no look at the partitions for 61 s"]
    reader.away = True
    await service._watch.look(reader)
    assert service.dead() == []
