"""Turns at what is heavy: one at a time in a process, some wait, the others are told to come again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from processor.api.errors import RETRY_AFTER_S, Refused

MOST_WAITING = 5


class Turns:
    """A queue for one thing."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self._most_waiting = most_waiting
        self._lock = asyncio.Lock()
        self._waiting = 0

    @property
    def taken(self) -> bool:
        """Whether somebody has his turn."""
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for one's turn and has it; raises `Refused` (503) where too many wait already."""
        if self.taken and self._waiting >= self._most_waiting:
            raise Refused(
                503, "Too many are waiting for this; try again", {"Retry-After": RETRY_AFTER_S}
            )
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()
