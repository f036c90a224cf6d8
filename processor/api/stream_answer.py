"""The answer of ``GET /stream``: server-sent events until the client leaves, is too slow, may not go on, or the process ends.

Whatever a client does, little of what is sent to it is held in this process: what waits in `Client`, and what was handed to
`send` last, which takes nothing more while any of it is unread.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from processor.api.stream_client import Client
from processor.api.stream_hub import Hub
from processor.pure import frames

CUT_OFF = "cut_off"
"""The name under which the connection's state has what drops it, with whatever it still buffers."""
FAREWELL_S = 0.5
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class EventStream(Response):
    """Of a client that was admitted to the hub; it leaves when this ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        hub: Hub,
        client: Client,
        hello: bytes,
        resuming: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._hub = hub
        self._client = client
        self._hello = hello
        self._resuming = resuming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Returns when the stream has ended."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send(_body(self._hello))
            await self._stream(receive, send)
        finally:
            self._hub.leave(self._client)
        await self._end(scope, receive, send)

    async def _stream(self, receive: Receive, send: Send) -> None:
        """Until the client is ended."""
        async with asyncio.TaskGroup() as tasks:
            work = [self._write(send), self._listen(receive)]
            if self._resuming:
                work.append(self._resuming())
            started = [tasks.create_task(each) for each in work]
            await self._client.ended.wait()
            for task in started:
                task.cancel()

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client.end("left")

    async def _write(self, send: Send) -> None:
        while True:
            text = self._client.take() or await self._next()
            await self._client.allowed.wait()
            try:
                async with asyncio.timeout(self._hub.manner.stalled_s):
                    await send(_body(text))
            except TimeoutError:
                self._hub.cut_off(self._client)
                return

    async def _next(self) -> bytes:
        """What comes next, or a sign of life where nothing does."""
        try:
            async with asyncio.timeout(self._hub.manner.keep_alive_s):
                await self._client.something.wait()
        except TimeoutError:
            sign = self._hub.keep_alive() if self._client.keeps_up else frames.KEEP_ALIVE
        else:
            sign = b""
        # Something may have come in the very moment: no position is told before what it stands behind.
        return self._client.take() or sign

    async def _end(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._client.why == "left":
            return
        if self._client.why != "slow":
            try:
                async with asyncio.timeout(FAREWELL_S):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except TimeoutError:
                pass  # it takes nothing any more
            else:
                return
        cut_off = scope.get("state", {}).get(CUT_OFF)
        if cut_off:
            cut_off()
            while (await receive())["type"] != "http.disconnect":
                pass


def _body(text: bytes) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": True}
