"""The processes of a run: real workers, which begin, die, drain, are suspended and wake up."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from processor.io.kafka import DEFAULT_TUNING, Cluster, Partition
from processor.io.kafka_sink import Outlet
from processor.merging import Merging
from processor.places import Place
from processor.worker import Work
from tests.unit.simulation.broker import Broker
from tests.unit.simulation.clients import Consumer, Producer, Reader
from tests.unit.simulation.loop import OWNER
from tests.unit.simulation.places import StagedPlaces
from tests.unit.simulation.stage import Process, Stage
from tests.unit.simulation.stores import Parts, Shared, Store
from tests.unit.simulation.traffic import HOUR, OUTPUTS, World


class FakeCluster(Cluster):
    """Consumers of the fake broker."""

    def __init__(self, make: Callable[[], Consumer], broker: Broker, batch: int) -> None:
        self.tuning = replace(DEFAULT_TUNING, batch_records=batch)
        self._make = make
        self._broker = broker

    def consumer(self) -> Any:
        """As the worker's group asks for one."""
        return self._make()

    def reader(self) -> Any:
        """Outside of the group."""
        return Reader(self._broker)


@dataclass
class Running:
    """One process at work."""

    process: Process
    worker: Any
    task: "asyncio.Task[int]"
    told: bool = False
    """It was told to stop."""


class Workers:
    """What is done to one of them is told as a line; None where it cannot be done."""

    def __init__(self, stage: Stage, broker: Broker, shared: Shared, parts: Parts) -> None:
        self._stage = stage
        self._broker = broker
        self._shared = shared
        self._parts = parts
        self._running: dict[str, Running] = {}
        self._consumers: list[Consumer] = []
        self._begun = 0
        self._places: dict[Partition, Place] = {}

    @property
    def names(self) -> list[str]:
        """All that have not died."""
        return list(self._running)

    def begin(self, world: World) -> str:
        """A new process."""
        self._begun += 1
        process = Process(f"worker {self._begun}")
        context = copy_context()
        context.run(OWNER.set, process)
        worker = context.run(self._worker, process, world)
        task = self._stage.loop.create_task(worker.run(), context=context)
        self._running[process.name] = Running(process, worker, task)
        return process.name

    def crash(self, name: str, world: World) -> str | None:
        """Its supervisor starts another one."""
        if name not in self._running:
            return None
        self.kill(name)
        return f"{name} dies, {self.begin(world)} starts"

    def drain(self, name: str, world: World) -> str | None:
        """As in a deployment."""
        running = self._running.get(name)
        if running is None or running.told:
            return None
        running.told = True
        running.worker.stop()
        return f"{name} is told to stop, {self.begin(world)} starts"

    def sleep(self, name: str) -> str | None:
        """It stands still between any two steps, and nobody knows."""
        if name not in self._running or self._running[name].process.asleep:
            return None
        self._running[name].process.asleep = True
        return f"{name} is suspended"

    def wake(self, name: str) -> str | None:
        """It goes on as if nothing had happened."""
        if name not in self._running or not self._running[name].process.asleep:
            return None
        self._running[name].process.asleep = False
        return f"{name} wakes up"

    def missed(self) -> str | None:
        """The group notices who is not there."""
        gone = [c for c in self._consumers if not c.process.runs and c in self._broker.members]
        for consumer in gone:
            self._broker.drop(consumer)
        names = ", ".join(consumer.process.name for consumer in gone)
        return f"the group goes on without {names}" if gone else None

    def mend(self, world: World) -> None:
        """Everybody who lives is awake, and somebody is there."""
        for name in self.names:
            self.wake(name)
        self.missed()
        if all(running.told for running in self._running.values()):
            self.begin(world)

    def kill(self, name: str) -> None:
        """Nothing it does from now on reaches anybody."""
        running = self._running.pop(name)
        ended = running.task.done()
        running.process.alive = False
        running.task.cancel()
        self._stage.loop.settle()
        if not running.task.done():
            self._stage.problems.append(f"{name} does not end")
        elif ended and (not running.told or running.task.result() != 0):
            self._stage.problems.append(f"{name} failed: {running.worker._defect!r}")

    def _worker(self, process: Process, world: World) -> Any:
        store = Store(self._stage, process, self._shared, self._parts)
        pipeline = self._parts.pipeline(store, store, store.rulebook, OUTPUTS, HOUR)
        merging = Merging(store.apply, OUTPUTS)
        work = Work(
            processes={"raw": pipeline.process, "merges": merging.process},
            too_large=lambda message: message,
            places=StagedPlaces(self._stage, process, self._places),
            background=[store.move],
        )
        cluster = FakeCluster(lambda: self._consumer(process, world), self._broker, world.batch)
        unused: Any = None  # nothing is packed here
        outlet = Outlet(cluster, unused, unused)
        sinks = self._transactional if world.exactly_once else self._idempotent
        return self._parts.worker(work, outlet, sinks)

    def _consumer(self, process: Process, world: World) -> Consumer:
        made = Consumer(self._stage, self._broker, process, fenced=world.exactly_once)
        self._consumers.append(made)
        return made

    def _transactional(self, outlet: Outlet, partition: Partition, group: Any) -> Any:
        own = f"{partition.topic}.{partition.partition}"
        if self._parts.own_ids:
            own = f"{group._consumer.process.name}.{own}"
        producer = Producer(group._consumer, self._broker, outlet, partition, own)
        return _with(
            self._parts.transactional,
            batches=producer,
            _source=partition,
            _group="group",
            _open=False,
        )

    def _idempotent(self, outlet: Outlet, partition: Partition, group: Any) -> Any:
        producer = Producer(group._consumer, self._broker, outlet, partition, "")
        return _with(
            self._parts.idempotent, batches=producer, _source=partition, _commit=group.commit
        )


def _with(made: Any, **fields: object) -> Any:
    """An object of a class without what its constructor would connect to."""
    found = made.__new__(made)
    for name, value in fields.items():
        setattr(found, name, value)
    return found
