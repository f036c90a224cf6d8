"""Whose turn it is to work: lanes that all work at once share a core and their servers, and so all finish late.

A lane that waits for its turn goes on collecting, and takes what there is when its turn comes.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 3
"""One is computed, the others wait for a server each."""
PATIENCE_S = 0.05


class Turns:
    """So many at once, and nobody waits longer than `patience_s`: where work takes long, one lane does not hold up another."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._free = asyncio.Semaphore(at_once)
        self.patience_s = patience_s

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Begins with a free turn, first come first served, or when the patience is at an end."""
        mine = False
        try:
            async with asyncio.timeout(self.patience_s):
                mine = await self._free.acquire()
        except TimeoutError:
            pass
        try:
            yield
        finally:
            if mine:
                self._free.release()
