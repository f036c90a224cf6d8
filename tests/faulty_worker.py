"""A worker that does trivial work and dies, or freezes, inside a step that the test names.

``python -m tests.faulty_worker``: the real worker, its lanes and its sinks; only the work is a stand-in,
and the steps of a sink are wrapped.  Whatever may happen to a process between two steps can so be tried,
without a word of it in the product.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from processor import telemetry
from processor.failures import Retryable, StartRefused
from processor.io.kafka import Partition, Tuning
from processor.io.kafka_batches import Packed
from processor.io.kafka_group import Group
from processor.io.kafka_sink import Idempotent, Outlet, Transactional
from processor.io.kafka_topics import Limits
from processor.lane_ports import Sink
from processor.lanes import Lane
from processor.pure.types import Message, Outcome, Record
from processor.settings import Settings
from processor.worker import Work, serve
from tests.fakes_places import KnownPlaces

QUICK = Tuning(
    session_ms=2_000,
    rebalance_ms=6_000,
    transaction_ms=4_000,
    recheck_ms=300,
    metadata_ms=1_000,
    drain_ms=3_000,
)
BATCHES_BEFORE = 3


class Fault:
    """Strikes one of the processes that share a folder, at the step that its file ``armed`` names.

    Who strikes leaves its process id in a file named like the step.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._number = signal.Signals[environment.get("FAULT_SIGNAL", "SIGKILL")]
        self._folder = Path(environment.get("FAULT_FOLDER", "."))
        self._armed = self._folder / "armed"
        self._batches = 0

    def at(self, step: str) -> None:
        """To be called at every step there is."""
        self._batches += step == "before_process"
        if self._batches < BATCHES_BEFORE or not self._armed.exists():
            return
        if self._armed.read_text() == step and not (self._folder / step).exists():
            self._strike(step)

    def _strike(self, step: str) -> None:
        whole = self._folder / f"{step}.{os.getpid()}"
        whole.write_text(str(os.getpid()))
        try:
            os.link(whole, self._folder / step)
        except FileExistsError:  # the other one was first
            return
        os.kill(os.getpid(), self._number)


class FaultyTransactional(Transactional):
    """Every step of a transaction may be the last one."""

    def __init__(self, outlet: Outlet, source: Partition, fault: Fault) -> None:
        super().__init__(outlet, source)
        self._fault = fault

    async def begin(self) -> None:
        """The step before anything is sent."""
        self._fault.at("before_begin")
        await super().begin()
        self._fault.at("after_begin")

    async def send(self, packed: Packed) -> None:
        """One half acknowledged, then the other."""
        await send_in_halves(super().send, packed, self._fault)

    async def place(self, next_offset: int) -> None:
        """The offset."""
        await super().place(next_offset)
        self._fault.at("after_offsets")

    async def commit(self) -> None:
        """Everything becomes visible."""
        await super().commit()
        self._fault.at("after_commit")


class FaultyIdempotent(Idempotent):
    """Between the outputs, and between outputs and offset."""

    def __init__(self, outlet: Outlet, source: Partition, group: Group[Lane], fault: Fault) -> None:
        super().__init__(outlet, source, group.commit)
        self._fault = fault

    async def send(self, packed: Packed) -> None:
        """One half acknowledged, then the other."""
        await send_in_halves(super().send, packed, self._fault)

    async def place(self, next_offset: int) -> None:
        """The offset."""
        await super().place(next_offset)
        self._fault.at("after_commit")


async def send_in_halves(send, packed: Packed, fault: Fault) -> None:  # type: ignore[no-untyped-def]
    """What a crash in the middle leaves half written."""
    targets = list(packed.items())
    half = (len(targets) + 1) // 2
    await send(dict(targets[:half]))
    fault.at("mid_sends")
    await send(dict(targets[half:]))
    fault.at("after_sends")


class Trivial:
    """Publishes every record as it is, to two partitions; some values ask for trouble."""

    def __init__(self, settings: Settings, fault: Fault, letter_bytes: int) -> None:
        self._settings = settings
        self._fault = fault
        self._letter_bytes = letter_bytes
        self._refusals = 0

    async def process(self, records: Sequence[Record]) -> Outcome:
        """A value ``raise`` is a defect, ``retry N`` is refused N times, ``size N`` becomes N bytes."""
        self._fault.at("before_process")
        messages = [await self._message(record) for record in records]
        self._fault.at("after_process")
        return Outcome(messages, records[-1].offset + 1)

    async def _message(self, record: Record) -> Message:
        value = record.value or b""
        word, _, number = value.partition(b" ")
        if word == b"raise":
            raise ValueError("a defect")
        if word == b"retry" and self._refusals < int(number):
            self._refusals += 1
            raise Retryable("postgres", "is away for the test")
        if word == b"slow":
            await asyncio.sleep(float(number))
        if word == b"size":
            value = b"x" * int(number)
        partition = None if record.offset % 2 else record.partition
        topic = self._settings.enriched_topic
        return Message(topic, record.key, value, (), record.timestamp, partition, record)

    def too_large(self, message: Message) -> Message:
        """A dead letter that says only which record it is about."""
        if message.topic == self._settings.dead_topic or message.source is None:
            return message
        value = f"{message.source.partition}:{message.source.offset}".encode()
        value = value.ljust(self._letter_bytes)
        return Message(self._settings.dead_topic, message.key, value, (), message.timestamp, None)


def main(environment: Mapping[str, str]) -> int:
    """The exit code, as the command's."""
    telemetry.configure_logging("json")
    fault = Fault(environment)

    @asynccontextmanager
    async def compose(settings: Settings, _: Limits) -> AsyncIterator[Work]:
        work = Trivial(settings, fault, int(environment.get("DEAD_LETTER_BYTES", "0")))
        topics = (settings.raw_topic, settings.merge_topic)
        yield Work(dict.fromkeys(topics, work.process), work.too_large, KnownPlaces())

    def sinks(outlet: Outlet, partition: Partition, group: Group[Lane]) -> Sink:
        if outlet.cluster.settings.processing_guarantee == "exactly_once":
            return FaultyTransactional(outlet, partition, fault)
        return FaultyIdempotent(outlet, partition, group, fault)

    try:
        tuning = Tuning() if environment.get("TUNING") == "product" else QUICK
        return asyncio.run(serve(Settings.load(), compose, tuning, sinks))
    except StartRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(os.environ))
