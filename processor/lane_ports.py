"""What a lane stands on: its producer, its membership, and what it shares with the other lanes of its worker."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from processor import inbox, places
from processor.io.kafka import Partition, Tuning
from processor.pure.types import Outcome, Record
from processor.turns import Turns
from processor.waits import Waits

Process: TypeAlias = Callable[[Sequence[Record]], Awaitable[Outcome]]
"""A batch of one partition, in order, never empty; may be called again with the same records."""


class Sink(Protocol):
    """One producer's life."""

    async def start(self) -> None:
        """Fences every earlier owner of the partition where the guarantee asks for it."""

    settles: bool
    """Whether it can end what its predecessors have left open."""

    async def settle(self) -> None:
        """Commits what an earlier producer of the partition has published and Kafka has not ended; raises as `publish` does.

        Where it is interrupted, Kafka may give up a part of that: the rest is then to be given up too, with `drop`.
        """

    async def drop(self) -> None:
        """Gives up outputs that an earlier producer of the partition has left open; raises as `publish` does."""

    async def publish(self, outcome: Outcome) -> None:
        """Outputs and offset; raises `Retryable`, `Fenced` or `Stopped`, and is worth nothing then."""

    async def discard(self) -> None:
        """Closes it, whatever state it is in; never raises."""


class Source(places.Source, Protocol):
    """The membership that the lane belongs to."""

    def owns(self, partition: Partition) -> bool:
        """Whether the partition is still assigned to it."""

    def seek(self, partition: Partition, offset: int) -> None:
        """What is fetched from now on begins at `offset`."""

    async def settled(self, partition: Partition) -> None:
        """Returns once the last transaction of the partition has ended; raises `Unsettled` where its end does not come, or `Retryable`."""

    def leave(self) -> None:
        """Ends the membership; the worker joins again."""


class Shared(Struct, frozen=True):
    """What all lanes of a worker share."""

    processes: Mapping[str, Process]
    """By topic."""
    open_sink: Callable[[Partition, Source], Sink]
    places: places.Places
    waits: Waits
    budget: inbox.Budget
    turns: Turns
    tuning: Tuning
    defect: Callable[[Exception], None]
    """Called with what nobody knows how to handle: the process ends."""
