"""The clients of the live stream: how many, how slow, for how long, and what is left of them."""

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from processor.api.server import END_WITHIN_S
from processor.embedded import Stack
from processor.embedded.journal import free_port
from tests.api.client import Api, api, http_client
from tests.api.sse import enriched, listening, publish
from tests.harness import Worker
from tests.harness_waiting import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

LARGE = {"text": "x" * 50_000}


def manner(api: Api, **more: Any) -> None:
    """Keeps streams in another way than usual."""
    hub = api.services.hub
    hub.manner = msgspec.structs.replace(hub.manner, **more)


async def metric(api: Api, name: str) -> float:
    """A sample without labels."""
    text = (await api.client.get("/metrics")).text
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


@asynccontextmanager
async def connection(
    api: Api, **options: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client on a socket of its own, which reads what it is made to read: the headers and the first sign of life so far."""
    port = int(api.url.rpartition(":")[2])
    made = socket.socket()
    made.setblocking(False)
    if "buffer" in options:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["buffer"])
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=made, limit=options.get("limit", 2**16))
    token = api.client.headers["authorization"]
    writer.write(f"GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"id: ")
        assert head.startswith(b"HTTP/1.1 200"), head
        yield reader, writer
    finally:
        writer.close()


async def test_a_quiet_stream_shows_that_it_is_open(api: Api) -> None:
    """With the position, so that a client of a quiet org unit need not go far back."""
    manner(api, keep_alive_s=0.05)
    async with listening(api.client) as stream:
        await until(lambda: stream.last_id)
        before = stream.last_id
        await publish(api.world, [enriched("foreign", "rival")])
        await until(lambda: stream.last_id != before)
        assert {*stream.comments} == {"connected", "keep-alive"}
        assert stream.events == []
    async with listening(api.client, last_id=stream.last_id) as again:
        await until(lambda: again.comments.count("keep-alive") > 1)
        assert again.events == []


async def test_a_client_that_reads_too_slowly_is_cut_off_and_may_come_back(api: Api) -> None:
    """Others go on; what the process holds for it is bounded; it has lost nothing."""
    async with (
        connection(api, buffer=4_096, limit=4_096) as (reader, _),
        listening(api.client) as quick,
    ):
        events = [enriched(f"evt-{n}", metadata=LARGE, partition=0) for n in range(200)]
        await publish(api.world, events)
        await quick.has_at_least(200, 20)
        await until(lambda: len(api.services.hub) == 1)
        assert await metric(api, "processor_stream_cut_off_total") >= 1
        got = bytearray()
        with suppress(ConnectionResetError):
            while data := await reader.read(1 << 16):
                got += data
    seen = re.findall(rb"id: (\S+)\nevent: new_event\ndata: .*?\n\n", got, re.DOTALL)
    first = re.match(rb"\S+", got)
    assert first
    last_id = (seen[-1] if seen else first[0]).decode()
    async with listening(api.client, last_id=last_id) as again:
        await again.has(200 - len(seen), 20)
        assert again.ids() == [f"evt-{n}" for n in range(len(seen), 200)]


async def test_a_client_that_takes_nothing_for_long_is_cut_off(api: Api) -> None:
    """However little waits for it."""
    manner(api, stalled_s=0.2)
    async with connection(api, buffer=4_096, limit=4_096):
        for n in range(40):
            if not len(api.services.hub):
                break
            await publish(api.world, [enriched(f"evt-{n}", metadata={"text": "x" * 99_000})] * 5)
        await until(lambda: len(api.services.hub) == 0)


async def test_five_hundred_clients_get_an_event(api: Api) -> None:
    """And when they are gone, nothing of them is left."""
    before = len(asyncio.all_tasks())
    async with asyncio.TaskGroup() as tasks:
        leave, arrived = asyncio.Event(), asyncio.Semaphore(0)

        async def client() -> None:
            async with connection(api) as (reader, _):
                arrived.release()
                await reader.readuntil(b"event: new_event\ndata: ")
                arrived.release()
                await leave.wait()

        for _ in range(500):
            tasks.create_task(client())
        for _ in range(500):
            await arrived.acquire()
        assert await metric(api, "processor_stream_clients") == len(api.services.hub) == 500
        await publish(api.world, [enriched("evt-1")])
        for _ in range(500):
            await arrived.acquire()
        leave.set()
    await until(lambda: len(api.services.hub) == 0)
    assert await metric(api, "processor_stream_clients") == 0
    await until(lambda: len(asyncio.all_tasks()) <= before + 2)


async def test_a_process_serves_only_so_many_streams(api: Api) -> None:
    """Another one is asked to come later."""
    manner(api, most_clients=1)
    async with listening(api.client):
        answer = await api.client.get("/stream")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["code"] == "unavailable"
    await until(lambda: len(api.services.hub) == 0)
    async with listening(api.client):
        pass


async def test_a_stream_ends_when_its_token_expires(api: Api) -> None:
    """Those of other tokens go on."""
    expiring = await api.as_org_unit("acme", lasts_ms=3_600_000)
    async with listening(expiring) as stream, listening(api.client) as other:
        api.now.at = api.services.clock() + 3_600_001
        await until(lambda: stream.ended, 5)
        await publish(api.world, [enriched("evt-1")])
        await other.has(1)
        assert (other.ended, stream.events) == (False, [])
    assert (await expiring.get("/stream")).status_code == 401


async def test_a_stream_ends_within_five_seconds_of_the_revocation_of_its_token(api: Api) -> None:
    """Revoked as an administrator does."""
    client = await api.as_org_unit("acme", name="bob")
    async with listening(client) as stream:
        await api.database.execute("UPDATE tokens SET revoked_at = now() WHERE name = 'bob'")
        await until(lambda: stream.ended, 5)
    await until(lambda: len(api.services.hub) == 0)


async def test_nothing_is_sent_while_nobody_can_say_whether_a_token_is_in_force(
    api: Api, stack: Stack
) -> None:
    """And nothing is lost by it."""
    assert stack.pids.get("postgres"), "unset the servers' URLs: this test freezes its own"
    async with listening(api.client) as stream:
        stack.kill("postgres", signal.SIGSTOP)
        try:
            (client,) = api.services.hub
            await until(lambda: not client.allowed.is_set())
            await publish(api.world, [enriched("evt-1")])
            await until(client.something.is_set)
            assert stream.events == []
        finally:
            stack.kill("postgres", signal.SIGCONT)
        await stream.has(1)


async def test_a_client_that_leaves_while_it_is_told_what_it_missed_is_forgotten(api: Api) -> None:
    """Nobody reads on for it."""
    async with listening(api.client) as stream:
        await until(lambda: stream.last_id)
    await publish(api.world, [enriched(f"evt-{n}", metadata=LARGE) for n in range(100)])
    async with listening(api.client, last_id=stream.last_id):
        pass
    await until(lambda: len(api.services.hub) == 0)


async def test_kafka_may_go_away_and_come_back(api: Api, stack: Stack) -> None:
    """Streams stay open and go on without a gap; who comes in between is told what it missed."""
    assert stack.pids.get("kafka"), "unset the servers' URLs: this test restarts its own"
    async with listening(api.client) as stream:
        await publish(api.world, [enriched("evt-1")])
        await stream.has(1)
        await asyncio.to_thread(stack.kill, "kafka")
        async with listening(api.client, last_id=stream.events[0].id) as again:
            await asyncio.to_thread(stack.start_one, "kafka")
            await publish(api.world, [enriched("evt-2")])
            await until(lambda: stream.ids() == ["evt-1", "evt-2"], 30)
            await until(lambda: again.ids() == ["evt-2"], 10)
        async with listening(api.client, last_id=stream.events[0].id) as later:
            await later.has(1)


async def test_streams_end_at_once_when_the_process_is_asked_to_end(
    api: Api, start_worker: Callable[..., Worker]
) -> None:
    """Also one that reads nothing; the process ends with exit code 0, long before requests would be given up."""
    port = free_port()
    process = start_worker({**api.world.environment(), "API_PORT": str(port)}, "api")
    api.url = f"http://127.0.0.1:{port}"
    client = http_client(api.url, None)
    client.headers["authorization"] = api.client.headers["authorization"]
    await until(lambda: listens(port), 20)
    async with client, listening(client) as stream, connection(api, buffer=4_096, limit=4_096):
        await publish(api.world, [enriched(f"evt-{n}", metadata=LARGE) for n in range(15)])
        await stream.has(15)
        process.send(signal.SIGTERM)
        await until(lambda: stream.ended, END_WITHIN_S / 2)
        assert await process.ended(END_WITHIN_S / 2) == 0
    assert "Traceback" not in process.output


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0
