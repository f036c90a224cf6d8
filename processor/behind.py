"""How far behind a partition is, as metrics, for as long as a lane has it."""

from collections.abc import Callable
from time import monotonic

from processor import telemetry
from processor.io.kafka import Partition


class Behind:
    """Lag and age of what one lane has not committed yet."""

    def __init__(self, partition: Partition, clock: Callable[[], float] = monotonic) -> None:
        self._partition = partition
        self._clock = clock
        self._offset: int | None = None
        self._first_ms: int | None = None
        self._lag = 0
        self._noticed: float | None = None
        """When there was first something to do whose age is unknown."""
        self._ended = False

    def at(self, offset: int) -> None:
        """Everything below is committed; before the first call nothing is told."""
        if offset != self._offset:
            self._offset, self._first_ms, self._noticed = offset, None, None

    def holds(self, first_ms: int | None) -> None:
        """The timestamp of the first record in hand.  It keeps its age when it is no longer in hand, and will be read again."""
        if first_ms is not None and first_ms >= 0:
            self._first_ms = first_ms

    def tell(self, lag: int | None) -> None:
        """`lag` is None where nobody knows it now: what was told last holds, and grows older."""
        if self._ended or self._offset is None:
            return
        if lag is not None:
            self._lag = lag
            telemetry.LAG.labels(*self._partition).set(lag)
        telemetry.OLDEST.labels(*self._partition).set(self._age_s())

    def end(self) -> None:
        """Nothing more is told: whoever has the partition next does."""
        self._ended = True
        telemetry.LAG.remove(*self._partition)
        telemetry.OLDEST.remove(*self._partition)

    def _age_s(self) -> float:
        if not self._lag:
            self._noticed = None
            return 0.0
        if self._first_ms is not None:
            return telemetry.age_s(self._first_ms)
        now = self._clock()
        self._noticed = now if self._noticed is None else self._noticed
        return now - self._noticed
