"""An event loop without a clock and without I/O: what is ready runs in order, timers fire when they are told to."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from heapq import heappop, heappush
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")
OWNER: ContextVar[object] = ContextVar("owner", default=None)
"""Whose tasks run: what a task starts, and what it waits for, is its owner's too."""


class Loop(asyncio.BaseEventLoop):
    """`settle` runs all that is ready, `advance` lets the time pass until the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[object] = []
        """What tasks raised with nobody there to see it."""
        self._now = 0.0
        self._ready_now: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle, object]] = []
        self._made = 0

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """In the order of calls."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready_now.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """When the time has come to `when`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heappush(self._timers, (when, self._made, handle, OWNER.get()))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing is logged: a failure that nobody sees is a defect."""
        self.failures.append(context.get("exception") or context.get("message"))

    def settle(self) -> None:
        """Until nothing is ready any more."""
        while self._ready_now:
            handle = self._ready_now.popleft()
            if not handle.cancelled():
                handle._run()

    def advance(self, runs: Callable[[object], bool]) -> bool:
        """To the next timer of an owner that runs, which fires; False where there is none."""
        waiting = []
        fires = None
        while self._timers and fires is None:
            timer = heappop(self._timers)
            if timer[2].cancelled():
                continue
            if runs(timer[3]):
                fires = timer
            else:
                waiting.append(timer)
        for timer in waiting:
            heappush(self._timers, timer)
        if fires is None:
            return False
        self._now = max(self._now, fires[0])
        self._ready_now.append(fires[2])
        return True

    @contextmanager
    def running(self) -> Iterator[None]:
        """What asyncio takes for the running loop."""
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            self.close()
