"""What was fetched for a lane and not yet taken, bounded by records and by bytes of all lanes together.

A lane that is busy goes on collecting, so that its next batch is everything that came meanwhile.  The first batches are small, so
that a worker over a backlog soon has something to show: lanes that all begin at once with all they can hold wait for each other.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence

from msgspec import Struct

from processor.pure.types import Record


class Bounds(Struct, frozen=True):
    """How much a batch and an inbox hold."""

    records: int
    weight: int
    record_weight: int
    """What a record weighs beside its key and value, in bytes."""
    first_records: int
    """Of the first batch; each one after it may have twice as many as the one before, up to `records`."""


class Budget:
    """The bytes that all lanes of a worker may hold: inboxes and batches in flight.  As much again is left for those that hold nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @property
    def left(self) -> bool:
        """Whether more may be fetched; what is already on its way may exceed it a little."""
        return self.held < self.limit

    @property
    def reserve(self) -> bool:
        """Whether a lane may fetch that has nothing: the others may wait for long, with all that they hold."""
        return self.held < 2 * self.limit


class Inbox:
    """Keeps records in order; `take` hands over at most a batch."""

    def __init__(self, bounds: Bounds, budget: Budget) -> None:
        self._bounds = bounds
        self._budget = budget
        self._parts: deque[tuple[Sequence[Record], int]] = deque()
        self._records = 0
        self._weight = 0
        self._in_flight = 0
        self._most = bounds.first_records
        self._first_ms: int | None = None
        self._woken = asyncio.Event()
        self._broken: Exception | None = None
        self._closed = False

    @property
    def has_room(self) -> bool:
        """Whether more may be fetched."""
        if self._broken or self._records >= self._bounds.records:
            return False
        budget, nothing = self._budget, not self._parts and not self._in_flight
        return self._weight < self._bounds.weight and (budget.left or (nothing and budget.reserve))

    @property
    def broken(self) -> bool:
        """Whether what was fetched after its records failed: the lane begins again behind them."""
        return self._broken is not None

    @property
    def empty(self) -> bool:
        """Nothing is waiting to be taken."""
        return not self._parts

    @property
    def oldest_ms(self) -> int | None:
        """The timestamp of the first record of the batch in flight, else of those that wait."""
        if self._in_flight:
            return self._first_ms
        return self._parts[0][0][0].timestamp if self._parts else None

    def put(self, records: Sequence[Record]) -> None:
        """Adds what was fetched next."""
        for part, weight in slices(records, self._bounds):
            self._parts.append((part, weight))
            self._records += len(part)
            self._weight += weight
            self._budget.held += weight
        self._woken.set()

    def fail(self, failure: Exception) -> None:
        """`take` raises it once what is there is used up."""
        self._broken = failure
        self._woken.set()

    def close(self) -> None:
        """`take` returns nothing from now on."""
        self._closed = True
        self._woken.set()

    async def filled(self) -> None:
        """Waits until there is something to take, or the inbox is closed; the batch taken before is done."""
        self.done()
        while not self._parts and not self._closed:
            if self._broken:
                raise self._broken
            self._woken.clear()
            await self._woken.wait()

    async def take(self) -> Sequence[Record]:
        """All there is, up to a batch; waits for the first record; nothing where the inbox is closed."""
        await self.filled()
        return [] if self._closed else self._batch()

    def done(self) -> None:
        """The batch that was taken is in nobody's hands any more."""
        self._budget.held -= self._in_flight
        self._in_flight = 0

    def clear(self) -> None:
        """Forgets everything; a failure too."""
        self.done()
        self._budget.held -= self._weight
        self._parts.clear()
        self._records = self._weight = 0
        self._broken = None

    def _batch(self) -> Sequence[Record]:
        most, self._most = self._most, min(2 * self._most, self._bounds.records)
        batch, self._in_flight = self._first(most)
        self._first_ms = batch[0].timestamp
        if self._parts and self._fits(batch, self._parts[0], most):
            batch = list(batch)
            while self._parts and self._fits(batch, self._parts[0], most):
                part, weight = self._parts.popleft()
                batch += part
                self._in_flight += weight
        self._records -= len(batch)
        self._weight -= self._in_flight
        return batch

    def _first(self, most: int) -> tuple[Sequence[Record], int]:
        """At most so many records of the first part, which loses them."""
        part, weight = self._parts.popleft()
        if len(part) <= most:
            return part, weight
        found = part[:most]
        its_weight = weigh(found, self._bounds.record_weight)
        self._parts.appendleft((part[most:], weight - its_weight))
        return found, its_weight

    def _fits(self, batch: Sequence[Record], part: tuple[Sequence[Record], int], most: int) -> bool:
        return (
            len(batch) + len(part[0]) <= most and self._in_flight + part[1] <= self._bounds.weight
        )


def slices(records: Sequence[Record], bounds: Bounds) -> Iterator[tuple[Sequence[Record], int]]:
    """The records in order, in parts within the bounds (or of one record), each with its weight."""
    if not records:
        return
    weight = weigh(records, bounds.record_weight)
    if len(records) <= bounds.records and (weight <= bounds.weight or len(records) == 1):
        yield records, weight
        return
    middle = len(records) // 2
    yield from slices(records[:middle], bounds)
    yield from slices(records[middle:], bounds)


def weigh(records: Sequence[Record], record_weight: int) -> int:
    """Bytes that records hold in memory, nearly."""
    values = sum([len(record.value) for record in records if record.value])
    keys = sum([len(record.key) for record in records if record.key])
    return values + keys + record_weight * len(records)
