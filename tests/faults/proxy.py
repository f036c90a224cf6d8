"""A TCP proxy that cuts, delays, throttles or freezes what passes, and reads enough of Kafka's protocol to choose by API key.

It runs in the test's own loop.  A frozen proxy still accepts connections, as a frozen server's kernel does.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, cast

PRODUCE, OFFSET_COMMIT, INIT_PRODUCER_ID, TXN_OFFSETS, END_TXN = 0, 8, 22, 28, 26
OFFSET_FETCH, JOIN_GROUP, TXN_PARTITIONS, TXN_GROUP = 9, 11, 24, 25
"""Kafka's API keys that faults aim at."""
_CHUNK = 1 << 16
_SLICE_S = 0.1


class Fate(Enum):
    """What becomes of a request."""

    PASS = "pass"
    CUT = "cut"
    """The connection ends before the server hears of it."""
    LOSE_REPLY = "lose reply"
    """The server does it; the connection ends instead of the answer."""
    HOLD = "hold"
    """It goes into `Proxy.held`, and nothing is heard on the connection any more: for whoever has it `delivered` later."""


Judge: TypeAlias = Callable[[int, bytes], Fate | bytes]
"""Given a Kafka API key and the request's frame, or 0 and a chunk of any other protocol.  Bytes, of Kafka alone: the server does
it, and this frame is answered instead."""


@dataclass
class Proxy:
    """In front of one server; what it does may be changed at any time."""

    target: int
    kafka: bool = False
    delay_s: float = 0.0
    """Of every chunk or frame, in each direction."""
    bytes_per_s: float = 0.0
    """0: as fast as can be."""
    judge: Judge | None = None
    done: Counter[str] = field(default_factory=Counter)
    """How often something bit: connections, cut, refused, lose reply, hold, answered, delayed, bytes."""
    held: list[bytes] = field(default_factory=list)
    port: int = 0
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _refuses: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def connections(self) -> int:
        """Of clients, that are open now."""
        return len(self._open) // 2

    def freeze(self) -> None:
        """Nothing passes any more; connections stay as they are."""
        self._flows.clear()

    def thaw(self) -> None:
        """What was held passes."""
        self._flows.set()

    def cut(self) -> None:
        """Ends every connection there is."""
        self.done["cut"] += self.connections
        for writer in self._open:
            writer.transport.abort()

    def refuse(self) -> None:
        """Ends every connection there is, and each new one at once."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        """The end of `refuse`."""
        self._refuses = False

    def heal(self) -> None:
        """Everything passes as if there were no proxy."""
        self.delay_s, self.bytes_per_s, self.judge, self._refuses = 0.0, 0.0, None, False
        self.thaw()

    async def ended(self) -> None:
        """Returns when every connection that was cut is done with."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, from its beginning to its end."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.done["connections"] += 1
        if self._refuses:
            self.done["refused"] += 1
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, forth}
        pipe = _Pipe(self, {})
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pipe.requests(reader, forth))
                both.create_task(pipe.replies(back, writer))
        except* (OSError, EOFError, _Ended):
            pass
        finally:
            self._open -= {writer, forth}
            writer.transport.abort()
            forth.transport.abort()

    async def passes(self, data: bytes) -> None:
        """Returns when it is time for the data to go on."""
        await self._flows.wait()
        if self.delay_s:
            self.done["delayed"] += 1
            await asyncio.sleep(self.delay_s)
        if self.bytes_per_s:
            self.done["throttled"] += 1
        left = float(len(data))
        while self.bytes_per_s and left > 0:  # who heals the proxy waits for nothing
            await asyncio.sleep(min(_SLICE_S, left / self.bytes_per_s))
            left -= _SLICE_S * self.bytes_per_s

    async def deliver(self, frame: bytes) -> bytes:
        """Lets the server hear of a held request at last; its answer, which nobody waits for any more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            writer.write(frame)
            return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
        finally:
            writer.close()


class _Ended(Exception):
    """One side is done, so the connection is."""


@dataclass
class _Pipe:
    """Both directions of one connection."""

    proxy: Proxy
    asked: dict[int, bytes]
    """By correlation id, of Kafka's requests that are not answered yet: what is answered instead, nothing where the answer is lost."""
    loses: bool = False
    """The next reply of another protocol is lost."""

    async def requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the client to the server."""
        while data := await self._read(reader):
            key, correlation = struct.unpack_from(">hxxi", data, 4) if self.proxy.kafka else (0, 0)
            fate = self.proxy.judge(key, data) if self.proxy.judge else Fate.PASS
            if fate is not Fate.PASS:
                self.proxy.done[fate.value if isinstance(fate, Fate) else "answered"] += 1
            if fate is Fate.CUT:
                raise _Ended
            if fate is Fate.HOLD:
                self.proxy.held.append(data)
                await self._hangs(reader)
            if isinstance(fate, bytes) or (fate is Fate.LOSE_REPLY and self.proxy.kafka):
                self.asked[correlation] = fate if isinstance(fate, bytes) else b""
            self.loses = self.loses or fate is Fate.LOSE_REPLY
            await self._send(data, writer)
        raise _Ended

    async def _hangs(self, reader: asyncio.StreamReader) -> None:
        """Until the client gives the connection up."""
        while await reader.read(_CHUNK):
            pass
        raise _Ended

    async def replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the server to the client."""
        while data := await self._read(reader):
            said = b"" if self.loses and not self.proxy.kafka else data
            if self.proxy.kafka:
                said = self.asked.pop(struct.unpack_from(">i", data, 4)[0], data)
            if not said:
                raise _Ended
            await self._send(said, writer)
        raise _Ended

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        """A frame of Kafka, or whatever is there; empty at the end."""
        if not self.proxy.kafka:
            return await reader.read(_CHUNK)
        with suppress(asyncio.IncompleteReadError):
            head = await reader.readexactly(4)
            return head + await reader.readexactly(int.from_bytes(head))
        return b""

    async def _send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self.proxy.passes(data)
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def proxied(target: int, port: int = 0, *, kafka: bool = False) -> AsyncIterator[Proxy]:
    """A proxy in front of a local port, for as long as the block runs; `port` 0 is any."""
    proxy = Proxy(target, kafka)
    proxy.thaw()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.heal()
        proxy.cut()
        await server.wait_closed()
        await proxy.ended()
