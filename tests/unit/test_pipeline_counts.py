"""What the pipeline counts: each row once, however often its batch is tried."""

from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY

from processor.failures import Retryable
from processor.pipeline import Pipeline
from processor.ports import Reading
from processor.pure.types import Facts
from tests.fakes import FakeEvents
from tests.fakes_windows import FakeWindows
from tests.unit.simulation.traffic import HOUR, OUTPUTS
from tests.unit.test_pipeline import World, every


class AwayOnce(FakeWindows):
    """Takes no fact at the first try."""

    away = True

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """Raises once."""
        if self.away:
            self.away = False
            raise Retryable("redis", "is away for the test")
        await super().write(reading, facts)


def told(name: str, **labels: str) -> float:
    """What a metric says now."""
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None
    return found


def counted() -> list[float]:
    """Organic, suppressed, by velocity, duplicates, dead letters."""
    return [
        told("processor_events_total", reason="none"),
        told("processor_events_total", reason="inorganic"),
        told("processor_decisions_total", kind="velocity"),
        told("processor_duplicates_total"),
        told("processor_dead_letters_total", stage="parse"),
    ]


async def test_a_batch_that_is_tried_again_after_its_commit_is_counted_all_the_same() -> None:
    """Its rows are known then, and a row that is known is not counted: the commit counts, whatever comes after it."""
    world = World(every(threshold=1))
    batch = [world.message(name) for name in ("a", "b", "a", "c")]
    windows = AwayOnce(world.database)
    worker = Pipeline(FakeEvents(world.database), windows, world.rulebook, OUTPUTS, HOUR)
    before = counted()
    with pytest.raises(Retryable, match="is away"):
        await worker.process(batch)
    await worker.process(batch)
    added = [now - then for now, then in zip(counted(), before, strict=True)]
    assert added == [1, 2, 2, 1, 0]


async def test_a_redelivered_batch_counts_no_row_again() -> None:
    """Nor does deciding a dead letter count it: that is left to whoever publishes it."""
    world = World()
    batch = [world.message("a"), world.raw(b"{")]
    await world.worker.process(batch)
    before = counted()
    outcome = await world.another().process(batch)
    assert counted() == before
    assert [message.stage for message in outcome.messages] == [None, "parse"]
