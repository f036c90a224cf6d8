"""Clients that hold a connection and say or read nothing, or a byte now and then: they are cut off, and others are served meanwhile."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import httpx
import pytest

from processor.api import connection, held
from tests.api import sse
from tests.api.client import Api, api
from tests.api.rows import row, store
from tests.api.test_robustness import fault
from tests.harness import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

SOON = 0.4
PAUSE = 0.05
HEAD = b"POST /leads/merge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"targetLeadId": "a", "sourceLeadIds": ["b"]}'


@pytest.fixture
async def hasty(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """An API that waits for heads and bodies hardly at all."""
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", SOON)
    monkeypatch.setattr(connection, "BODY_WITHIN_S", SOON)
    return api


@asynccontextmanager
async def connected(api: Api) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of one's own."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def cut_off(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], trickled: bytes
) -> bytes:
    """What was answered by the time the server ends it, while a byte is sent now and then."""
    reader, writer = streams
    answered = bytearray()
    async with asyncio.timeout(20):
        while True:
            try:
                writer.write(trickled)
                async with asyncio.timeout(PAUSE):
                    more = await reader.read(1 << 16)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if not more:
                break
            answered += more
    return bytes(answered)


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\n", HEAD + b"X-Long: "])
async def test_a_head_that_does_not_end_is_not_waited_for(hasty: Api, first: bytes) -> None:
    """Whether nothing comes, or a little all the time."""
    for trickled in (b"", b"X"):
        async with connected(hasty) as streams:
            streams[1].write(first)
            assert await cut_off(streams, trickled) == b""
    assert (await hasty.client.get("/healthz")).status_code == 200


async def test_a_body_that_does_not_end_is_not_waited_for(hasty: Api) -> None:
    """With and without a length; one that nobody reads neither."""
    token = hasty.client.headers["authorization"].encode()
    bearing = HEAD + b"Authorization: " + token + b"\r\n"
    for head in (
        bearing + b"Content-Length: 100000\r\n\r\n{",
        bearing + b"Transfer-Encoding: chunked\r\n\r\n100\r\n{",
        HEAD + b"Content-Length: 100000\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    ):
        async with connected(hasty) as streams:
            streams[1].write(head)
            answered = await cut_off(streams, b" ")
            assert not answered.startswith(b"HTTP/1.1 5"), answered
    assert (await hasty.client.post("/leads/merge", content=BODY)).status_code == 202


async def test_requests_in_time_are_answered_on_one_connection_however_long_it_lasts(
    hasty: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of each request; a connection may have many."""
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", 2.0)  # longer than this process ever stalls
    async with connected(hasty) as (reader, writer):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + 1.5 * connection.HEAD_WITHIN_S:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(b'{"status":"ok"}'))


async def test_a_stream_is_no_slow_request(hasty: Api) -> None:
    """It has come whole; its answer may last."""
    async with sse.listening(hasty.client) as stream:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await until(lambda: loop.time() > begun + 2 * SOON)
        await sse.publish(hasty.world, [sse.enriched("late")])
        await stream.has(1)
    assert stream.ids() == ["late"]


@asynccontextmanager
async def listing(api: Api, more: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """10 MB of answer on their way to a client that has read only their head, and how many bytes they are."""
    text = "x" * 100_000
    await store(api.database, [row(n, metadata={"text": text}) for n in range(100)])
    reading = socket.socket()
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    reading.setblocking(False)
    await asyncio.get_running_loop().sock_connect(
        reading, ("127.0.0.1", int(api.url.rpartition(":")[2]))
    )
    reader, writer = await asyncio.open_connection(sock=reading, limit=1 << 14)
    try:
        token = api.client.headers["authorization"]
        head = f"Host: x\r\nAuthorization: {token}\r\n{more}\r\n"
        writer.write(f"GET /events?limit=100 HTTP/1.1\r\n{head}".encode())
        answered = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answered.startswith(b"http/1.1 200")
        yield reader, int(answered.partition(b"content-length: ")[2].split()[0])
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
async def test_an_answer_is_read_as_slowly_as_its_client_can(hasty: Api, more: str) -> None:
    """No other request is awaited before it is read."""
    async with listing(hasty, more) as (reader, size):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await until(lambda: loop.time() > begun + 3 * SOON)
        assert len(await reader.readexactly(size)) == size


@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
async def test_a_client_that_hardly_reads_its_answer_is_cut_off(
    api: Api, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """What is left for it is held no longer, though it takes a little all the time."""
    monkeypatch.setattr(connection, "READ_WITHIN_S", SOON)
    async with listing(api, more) as (reader, size):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await _dribbled(reader, size)


async def _dribbled(reader: asyncio.StreamReader, size: int) -> None:
    """Reads so much, 4 KB at a time."""
    loop = asyncio.get_running_loop()
    begun, got = loop.time(), 0
    while got < size:
        got += len(await reader.readexactly(min(1 << 12, size - got)))
        ready = begun + PAUSE * got / (1 << 12)
        await until(partial(_past, ready))


def _past(time: float) -> bool:
    return asyncio.get_running_loop().time() > time


async def test_answers_that_nobody_reads_are_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more that is large is refused, small ones are given; where it was read there is room."""
    monkeypatch.setattr(held, "MOST_ANSWERS", held.SHARES * 15_000_000)
    async with listing(api) as (reader, size):
        again = partial(api.client.get, "/events?limit=100")
        answer = await _until(503, again)
        fault(answer, 503, "unavailable")
        assert answer.headers["retry-after"]
        assert (await api.client.get("/event-types")).status_code == 200
        await reader.readexactly(size)
    answer = await _until(200, again)
    assert len(answer.content) == size


async def test_bodies_that_are_not_whole_are_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together: one more is refused until one of them is over, and a small one never."""
    monkeypatch.setattr(held, "MOST_BODIES", held.SHARES * 2_300_000)
    token = api.client.headers["authorization"].encode()
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nAuthorization: " + token
    text = {"lead_id": "a", "event_type": "page_view", "metadata": {"text": "x" * 90_000}}
    send = partial(api.client.post, "/ingest", json=[text] * 6)
    async with AsyncExitStack() as held_open:

        async def beside_one_more() -> httpx.Response:
            _, writer = await held_open.enter_async_context(connected(api))
            writer.write(head + b"\r\nContent-Length: 1000001\r\n\r\n" + b" " * 1_000_000)
            return await send()

        answer = await _until(503, beside_one_more)  # two of them are there
        fault(answer, 503, "unavailable")
        assert answer.headers["retry-after"]
        assert (await api.client.post("/leads/merge", content=BODY)).status_code == 202
    assert len((await _until(202, send)).json()["ids"]) == 6


async def _until(status: int, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer that has it."""
    answers: list[httpx.Response] = []

    async def asked() -> bool:
        answers.append(await ask())
        return answers[-1].status_code == status

    await until(asked)
    return answers[-1]


async def test_connections_are_bounded_and_those_there_are_served(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is cut at once; where one has gone there is room."""
    assert (await api.client.get("/healthz")).status_code == 200
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 6)
    async with AsyncExitStack() as held:
        streams = [await held.enter_async_context(connected(api)) for _ in range(20)]
        ended = [asyncio.create_task(_ended(reader)) for reader, _ in streams]
        await until(lambda: sum(task.done() for task in ended) == len(streams) - 5)
        assert (await api.client.get("/healthz")).status_code == 200
        for task in ended:
            task.cancel()
    await until(lambda: _served(api))


async def _ended(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read()


async def _served(api: Api) -> bool:
    """A client that has no connection yet."""
    try:
        async with httpx.AsyncClient(base_url=api.url, trust_env=False) as client:
            return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False
