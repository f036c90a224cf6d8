"""The end of a lane's last transaction, looked for beside its next batch."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Ending:
    """Tells `failed` at once where the end does not come: a lane without work would not ask."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._looking: asyncio.Task[None] | None = None

    def begin(self, looking: Coroutine[Any, Any, None]) -> None:
        """A transaction was committed; `looking` ends when its end has come, and raises where it does not."""
        self._looking = asyncio.ensure_future(looking)
        self._looking.add_done_callback(self._looked)

    async def has_come(self) -> None:
        """Returns when the last one has ended; raises what looking for it raises."""
        if self._looking is not None:
            await self._looking

    def forget(self) -> None:
        """Nobody wants to know any more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _looked(self, looking: asyncio.Task[None]) -> None:
        error = None if looking.cancelled() else looking.exception()
        if isinstance(error, Exception) and looking is self._looking:
            self._failed(error)
