"""The places of lanes, as Postgres remembers them for all workers: asking it and telling it are steps like any other."""

from collections.abc import Callable
from typing import Any

from processor.failures import Retryable
from processor.io.kafka import Partition
from processor.places import Place
from tests.unit.simulation.stage import Process, Stage


class StagedPlaces:
    """Of one worker; `known` is what all of them have told."""

    def __init__(self, stage: Stage, process: Process, known: dict[Partition, Place]) -> None:
        self._stage = stage
        self._process = process
        self._known = known
        self._new: dict[Partition, Place] = {}

    async def kept(self, partition: Partition) -> Place | None:
        """The last one."""
        found: Place | None = await self._step(
            partition, "asks for its place", lambda _: self._known.get(partition)
        )
        return self._new.get(partition, found)

    async def take(self, partition: Partition, place: Place) -> None:
        """Known to all from then on."""

        def taken(_: int) -> None:
            self._known[partition] = place
            self._new.pop(partition, None)

        await self._step(partition, f"takes its place at {place.next_offset}", taken)

    def reached(self, partition: Partition, place: Place) -> None:
        """Known here alone."""
        self._new[partition] = place

    async def keep(self) -> None:
        """What is new, all at once."""
        for partition, place in list(self._new.items()):
            await self.take(partition, place)

    async def _step(self, partition: Partition, what: str, effect: Callable[[int], Any]) -> Any:
        who = self._process, f"{partition.topic}/{partition.partition}"
        return await self._stage.does(who, what, effect, Retryable("postgres", "away"))
