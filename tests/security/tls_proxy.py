"""Ends TLS in front of a server that has none: what a client says comes to the server in the clear, on loopback.

A proxy runs in a thread of its own, so that a test may wait for a process meanwhile.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from processor.embedded.journal import free_port
from tests.security.certificates import server_context

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""The first words of a Postgres client that wants TLS: their length and a number that is no version."""
_CHUNK = 1 << 16

Opening: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]
"""What comes before the rest; the bytes that the server has to be told of it."""


class Proxy:
    """Where it listens, and what was seen of its clients."""

    def __init__(self) -> None:
        self.port = free_port()
        self.encrypted = 0
        """Connections whose handshake succeeded."""


@contextmanager
def tls_in_front_of(port: int, certificate: Path) -> Iterator[Proxy]:
    """TLS from the first byte, as ``rediss://`` wants it."""
    context = server_context(certificate)
    with _listening(Proxy(), _nothing, port, context) as proxy:
        yield proxy


@contextmanager
def tls_of_postgres(port: int, certificate: Path) -> Iterator[Proxy]:
    """TLS once a client has asked for it and was told S."""
    proxy, context = Proxy(), server_context(certificate)
    with _listening(proxy, partial(_agree, proxy, context), port, None):
        yield proxy


@contextmanager
def no_tls_of_postgres(port: int) -> Iterator[Proxy]:
    """Whoever asks for TLS is told N, and may go on in the clear."""
    with _listening(Proxy(), _decline, port, None) as proxy:
        yield proxy


def port_of(url: str) -> int:
    """Of a server."""
    port = urlsplit(url).port
    assert port
    return port


def through(url: str, port: int, authority: Path) -> str:
    """The same server behind a proxy that is to be believed for this authority."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    there = parts._replace(netloc=f"{login}@127.0.0.1:{port}")
    if parts.scheme == "redis":
        return urlunsplit(there._replace(scheme="rediss", query=f"ssl_ca_certs={authority}"))
    return urlunsplit(there._replace(query=f"sslmode=verify-full&sslrootcert={authority}"))


async def _nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bytes:
    return b""


async def _agree(
    proxy: Proxy,
    context: ssl.SSLContext,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bytes:
    first = await reader.readexactly(len(SSL_REQUEST))
    if first != SSL_REQUEST:
        return first
    writer.write(b"S")
    await writer.start_tls(context)
    proxy.encrypted += 1
    return b""


async def _decline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    first = await reader.readexactly(len(SSL_REQUEST))
    if first != SSL_REQUEST:
        return first
    writer.write(b"N")
    return b""


@contextmanager
def _listening(
    proxy: Proxy, opening: Opening, port: int, context: ssl.SSLContext | None
) -> Iterator[Proxy]:
    loop, ready, ends = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if context is not None:
            proxy.encrypted += 1
        await _passed_on(opening, port, reader, writer)

    async def serve() -> None:
        async with await asyncio.start_server(served, "127.0.0.1", proxy.port, ssl=context):
            ready.set()
            await ends.wait()

    def run() -> None:
        with contextlib.closing(loop):
            loop.set_exception_handler(
                lambda _, __: None
            )  # a handshake that fails is what is tested
            loop.run_until_complete(serve())
            _end(loop)

    thread = threading.Thread(target=run, name="tls proxy")
    thread.start()
    try:
        assert ready.wait(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(10)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Every connection that is left."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    for _ in range(3):  # what was aborted is closed in the turns after
        loop.run_until_complete(asyncio.sleep(0))


async def _passed_on(
    opening: Opening, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Both ways, until one side ends; an error of either side is the end of both."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.ExitStack() as ends:
        ends.callback(writer.transport.abort)
        first = await opening(reader, writer)
        its_reader, its_writer = await asyncio.open_connection("127.0.0.1", port)
        ends.callback(its_writer.transport.abort)
        its_writer.write(first)
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_pump(reader, its_writer))
            ways.create_task(_pump(its_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
