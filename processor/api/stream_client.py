"""A client of the live stream: what waits for it, and whether it may go on.

What waits is bounded.  A client that does not keep up is ended, and may come back to where it was.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Literal, TypeAlias

from processor.api.auth import Principal
from processor.pure.frames import Frame, Wanted

Ending: TypeAlias = Literal["left", "slow", "unauthorized", "stopping"]
CHUNK_BYTES = 64 << 10
"""Events are written together up to this size."""
MOST_WAITING = 1_000
"""Events; and bytes, unless it is a single event."""
MOST_WAITING_BYTES = 1 << 20


class Client:
    """From its admission to its end.  Not before it `keeps_up` is it given live events; until then they wait."""

    def __init__(self, principal: Principal, wanted: Wanted) -> None:
        self.principal = principal
        self.wanted = wanted
        self.ended = asyncio.Event()
        self.why: Ending | None = None
        self.something = asyncio.Event()
        """Set while there is something to `take`."""
        self.allowed = asyncio.Event()
        """Cleared while nobody can say whether its token is in force: nothing is sent then."""
        self.allowed.set()
        self.keeps_up = False
        self._live: deque[bytes] = deque()
        self._live_bytes = 0
        self._replayed: deque[bytes] = deque()
        self._drained = asyncio.Event()
        self._drained.set()

    def end(self, why: Ending) -> None:
        """Nothing else is sent; the first reason counts."""
        if self.why is None:
            self.why = why
            self.ended.set()
            self._live.clear()

    def offer(self, frame: Frame) -> bool:
        """Gives it a live event; False where too much waits for it already."""
        if self.why is not None or not self.wanted.takes(frame):
            return True
        full = self._live_bytes + len(frame.text) > MOST_WAITING_BYTES
        if len(self._live) == MOST_WAITING or (full and self._live):
            return False
        self._live.append(frame.text)
        self._live_bytes += len(frame.text)
        if self.keeps_up:
            self.something.set()
        return True

    async def replay(self, frames: Iterable[Frame]) -> None:
        """Gives it events of before; returns when they are on their way."""
        self._replayed.extend(frame.text for frame in frames if self.wanted.takes(frame))
        if self._replayed:
            self._drained.clear()
            self.something.set()
            await self._drained.wait()

    def go_live(self) -> None:
        """It has had everything before the live events that wait."""
        self.keeps_up = True
        if self._live:
            self.something.set()

    def take(self) -> bytes:
        """What is to be written next; nothing where nothing waits."""
        parts = [*_taken(self._replayed)]
        if not self._replayed:
            self._drained.set()
        if not parts and self.keeps_up:
            parts = [*_taken(self._live)]
            self._live_bytes -= sum(map(len, parts))
        if not parts:
            self.something.clear()
        return b"".join(parts)


def _taken(waiting: deque[bytes]) -> Iterable[bytes]:
    size = 0
    while waiting and (not size or size + len(waiting[0]) <= CHUNK_BYTES):
        size += len(waiting[0])
        yield waiting.popleft()
