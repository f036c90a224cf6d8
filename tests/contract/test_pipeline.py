"""The whole path on Postgres and Redis against brute force: crashes in every step, losses between any two, changes of filters."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from msgspec import Struct

from processor.io import filters
from processor.io.rulebook import Rulebook
from processor.io.windows import Windows
from processor.pipeline import Pipeline
from processor.ports import Answer, Reading, Recorded
from processor.pure.types import Case, Facts, FilterOrder, Message, Record, Ruling
from tests.contract.decision_world import LONG_AGO, NOW, ORG, RealWorld, real_world, scratch
from tests.contract.filter_world import file
from tests.unit.simulation.traffic import HOUR, OUTPUTS, documents, messages
from tests.unit.simulation.truth import Truth, verdict_problems

__all__ = ["scratch"]
pytestmark = pytest.mark.contract
SIZE = 130


class CrashError(Exception):
    """The worker dies here."""


@dataclass
class Lane:
    """One partition: its messages, what is committed, and what was published with that."""

    log: Sequence[Record]
    committed: int = 0
    published: list[Message] = field(default_factory=list)


class Stored(Struct, frozen=True):
    """A row, as a ruling says it."""

    reason: str | None
    suppressed_by: dict[str, Any] | None


class Faulty:
    """A worker on real servers that may die at any step, and whose Redis forgets between any two."""

    def __init__(
        self, world: RealWorld, r: random.Random, lanes: tuple[Lane, ...], order: FilterOrder
    ) -> None:
        self.world = world
        self.random = r
        self.lanes = lanes
        self.truth = Truth(order)
        self.order = order
        self.windows = Windows(world.server, world.past, r.choice((0, 10, 60, 200)))

    async def run(self) -> None:
        """Processes both partitions, in batches of any size, until all is published."""
        await self._change()
        self.rulebook = await Rulebook.load(self.world.postgres, self.order)
        pipeline = Pipeline(self, self, self.rulebook, OUTPUTS, HOUR)
        while open_lanes := [lane for lane in self.lanes if lane.committed < len(lane.log)]:
            lane = self.random.choice(open_lanes)
            batch = lane.log[lane.committed : lane.committed + self.random.choice((1, 3, 10, 40))]
            try:
                outcome = await pipeline.process(batch)
                self._maybe_crash(0.05)
            except CrashError:
                continue
            lane.published += outcome.messages
            lane.committed = outcome.next_offset

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """Before it filters may change, before and after it the worker may die."""
        self._maybe_crash(0.05)
        if self.random.random() < 0.05:
            await self._change()
        answer = await self.world.events.record(rulings, rules)
        if isinstance(answer, Recorded):
            for n, ruling in enumerate(rulings):
                if n not in answer.known:
                    self.truth.judge(
                        ruling.case.event, ruling.case.event.lead_id, self.rulebook.rules
                    )
        self._maybe_crash(0.05)
        return answer

    async def read(self, cases: Sequence[Case]) -> Reading:
        """Redis may have forgotten everything."""
        await self._maybe_lose()
        return await self.windows.read(cases)

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """Redis may have forgotten everything, and the worker may die after some of the facts."""
        await self._maybe_lose()
        if self.random.random() < 0.1:
            some = [n for n in range(len(facts)) if self.random.random() < 0.5]
            part = Reading([reading.cases[n] for n in some], ())
            await self.windows.write(part, [facts[n] for n in some])
            raise CrashError
        await self.windows.write(reading, facts)

    async def _change(self) -> None:
        wanted = file(**{ORG: documents(self.random)})
        await filters.apply(self.world.postgres, wanted, "ann")

    def _maybe_crash(self, chance: float) -> None:
        if self.random.random() < chance:
            raise CrashError

    async def _maybe_lose(self) -> None:
        if self.random.random() < 0.05:
            await self.world.redis.flushdb()

    async def wrong(self) -> list[object]:
        """Rows that are not as brute force says, and messages that are not as their rows."""
        query = "SELECT id, suppression_reason, suppressed_by::text FROM events"
        rows = {
            row[0]: Stored(row[1], row[2] and orjson.loads(row[2]))
            for row in await self.world.connection.fetch(query)
        }
        problems: list[object] = []
        for event_id, judged in self.truth.judged.items():
            row = rows[event_id]
            problems += verdict_problems(event_id, judged, row.reason, row.suppressed_by)
        values = [orjson.loads(m.value or b"") for lane in self.lanes for m in lane.published]
        said = {
            value["id"]: Stored(value["suppression_reason"], value["suppressed_by"])
            for value in values
        }
        if len(values) != len(said):
            problems.append("published twice")
        asked = {orjson.loads(m.value or b"")["id"] for lane in self.lanes for m in lane.log}
        if set(rows) != asked:
            problems.append(set(rows) ^ asked)
        return problems + [
            (i, rows.get(i), said.get(i)) for i in asked if rows.get(i) != said.get(i)
        ]


@pytest.mark.parametrize("start", [LONG_AGO, NOW - 5_000], ids=["long ago", "now"])
@pytest.mark.parametrize("seed", range(8))
async def test_verdicts_are_those_of_brute_force_whatever_happens(
    scratch: str, redis_url: str, seed: int, start: int
) -> None:
    """Long ago every absent window is built; near now those past all that is stored are trusted."""
    r = random.Random(seed)
    order: FilterOrder = ("velocity,metadata", "metadata,velocity")[seed % 2]
    async with real_world(scratch, redis_url, 0) as world:
        lanes = tuple(Lane(log) for log in messages(r, start, SIZE))
        worker = Faulty(world, r, lanes, order)
        await worker.run()
        assert not await worker.wrong()
