"""Workers that break one rule each, to show that the checker would find it: the rule's invariant is violated, nothing crashes."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from processor import composition
from processor.io.kafka import Partition
from processor.io.kafka_group import Group
from processor.io.kafka_sink import Batches, Outlet
from processor.lane_ports import Sink
from processor.lanes import Lane
from processor.ports import Answer, Reading, Recorded
from processor.pure.types import Outcome, Ruling
from processor.worker import OpenSink
from tests.faults.points import PointedEvents, PointedTransactional, PointedWindows, Points

Mutant: TypeAlias = Callable[[OpenSink, Points], OpenSink]

MERGE_WITHOUT_LOCK = """
CREATE OR REPLACE FUNCTION lock_classes(p_org text, p_roots text[]) RETURNS void LANGUAGE sql AS ''
"""
"""A mutant of the database: merges no longer wait for the ingest of their leads."""
SLOW_COMMITS = (
    """
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$
    """,
    "CREATE TRIGGER dawdle AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION dawdle()",
)
"""No mutant: it holds each batch between what it saw and its commit, where a merge must not come in between."""


class OffsetsFirst(PointedTransactional):
    """Commits the offset, then the outputs."""

    async def publish(self, outcome: Outcome) -> None:
        packed = self.batches.pack(outcome)
        async with self.batches.step():
            await self.begin()
            await self.place(outcome.next_offset)
            await self.commit()
            await self.begin()
            await self.send(packed)
            await self.commit()


class Unfenced(PointedTransactional):
    """Has a transactional id that nobody else has: its predecessor is not fenced."""

    def __init__(self, outlet: Outlet, source: Partition, points: Points) -> None:
        super().__init__(outlet, source, points)
        own = f"{outlet.cluster.transactional_id(source)}.{secrets.token_hex(4)}"
        self.batches = Batches(outlet, source, own)


class SeeksFirst(PointedTransactional):
    """Starts its producer, so fences, only when it first publishes: the offset was read before."""

    _started = False

    async def start(self) -> None:
        pass

    async def publish(self, outcome: Outcome) -> None:
        if not self._started:
            await super().start()
            self._started = True
        await super().publish(outcome)


class FactsFirst(PointedEvents):
    """Tells windows of events before they are committed."""

    windows: PointedWindows

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        reading = Reading([ruling.case for ruling in rulings], ())
        await self.windows.write(reading, [ruling.facts for ruling in rulings])
        return await super().record(rulings, rules)


class KnownWindows(PointedWindows):
    """Makes itself known to `FactsFirst`."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        FactsFirst.windows = self


class Forgetful(PointedEvents):
    """Answers what was decided now where something is stored already."""

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        answer = await super().record(rulings, rules)
        if not isinstance(answer, Recorded):
            return answer
        known = {
            n: replace(stored, reason=rulings[n].reason, suppressed_by=rulings[n].suppressed_by)
            for n, stored in answer.known.items()
        }
        return replace(answer, known=known)


def _sink(made: type[PointedTransactional]) -> Mutant:
    def mutant(_: OpenSink, points: Points) -> OpenSink:
        def opened(outlet: Outlet, partition: Partition, __: Group[Lane]) -> Sink:
            return made(outlet, partition, points)

        return opened

    return mutant


def _parts(**parts: type) -> Mutant:
    def mutant(sinks: OpenSink, _: Points) -> OpenSink:
        for name, part in parts.items():
            setattr(composition, name, part)
        return sinks

    return mutant


MUTANTS: dict[str, Mutant] = {
    "offsets before outputs": _sink(OffsetsFirst),
    "no fencing": _sink(Unfenced),
    "seek before the producer starts": _sink(SeeksFirst),
    "facts before the commit": _parts(Events=FactsFirst, Windows=KnownWindows),
    "what was decided is published": _parts(Events=Forgetful),
}
