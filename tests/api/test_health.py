"""Probes: what is frozen, what is dead and what is slow, each told in bounded time."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from processor.api.health import DEAD_S, SLOW_S, Probe
from processor.embedded import Stack
from processor.failures import Retryable
from tests.api.client import Api, api
from tests.harness import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e


@asynccontextmanager
async def frozen(stack: Stack, server: str) -> AsyncIterator[None]:
    """All processes of one server stand still meanwhile."""
    assert stack.pids.get(server), "unset the servers' URLs: this test freezes its own"
    await asyncio.to_thread(stack.kill, server, signal.SIGSTOP)
    try:
        yield
    finally:
        await asyncio.to_thread(stack.kill, server, signal.SIGCONT)


async def ready(api: Api) -> tuple[int, dict[str, Any]]:
    """Status and states, told in time."""
    began = time.monotonic()
    answer = await api.bearing(None).get("/readyz")
    assert time.monotonic() - began < DEAD_S + 1
    return answer.status_code, answer.json()


async def test_a_ready_process_says_so_of_each_of_its_dependencies(api: Api) -> None:
    """Without a token."""
    states = {"postgres": "ok", "kafka": "ok"}
    assert await ready(api) == (200, {"status": "ok", "dependencies": states})
    assert (await api.bearing(None).get("/healthz")).json() == {"status": "ok"}


@pytest.mark.fault
@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_frozen_server_is_away_until_it_goes_on(
    api: Api, stack: Stack, server: str
) -> None:
    """The process itself lives on; many who ask take no more of the server than one."""
    stranger = api.bearing(None)

    async def all_is_well() -> bool:
        return (await ready(api))[0] == 200

    await until(all_is_well)
    async with frozen(stack, server):
        for _ in range(2):
            status, body = await ready(api)
            assert (status, body["status"]) == (503, "unready")
            assert body["dependencies"][server] == "away"
            (other,) = set(body["dependencies"]) - {server}
            assert body["dependencies"][other] in ("ok", "slow")
        async with asyncio.TaskGroup() as many:
            answers = [many.create_task(stranger.get("/readyz")) for _ in range(30)]
        assert {answer.result().status_code for answer in answers} == {503}
        assert (await stranger.get("/healthz")).status_code == 200
    await until(all_is_well, 30)
    assert (await api.client.get("/events")).status_code == 200


@pytest.mark.fault
async def test_a_merge_is_never_accepted_while_kafka_does_not_answer(
    api: Api, stack: Stack
) -> None:
    """503, with the time to try again; nothing is remembered of it."""
    body = {"targetLeadId": "A", "sourceLeadIds": ["B"]}
    async with frozen(stack, "kafka"):
        answer = await api.client.post("/leads/merge", json=body)
    assert answer.status_code == 503
    assert answer.json()["error"] == {"code": "unavailable", "message": "kafka is away; try again"}
    assert int(answer.headers["retry-after"]) > 0
    assert await api.database.fetchval("SELECT count(*) FROM merge_requests") == 0

    async def accepted() -> bool:
        return (await api.client.post("/leads/merge", json=body)).status_code == 202

    await until(accepted, 30)


async def test_slow_is_not_dead() -> None:
    """An answer that takes its time, an error at once, and silence; and again well afterwards."""
    silence = asyncio.Event()
    asked = []

    async def slowly() -> None:
        await asyncio.sleep(SLOW_S + 0.1)

    async def broken() -> None:
        raise Retryable("postgres", "connection refused")

    async def silent() -> None:
        asked.append(1)
        await silence.wait()

    began = time.monotonic()
    probe = Probe(silent)
    async with asyncio.TaskGroup() as probes:
        states = [probes.create_task(one.state()) for one in (Probe(slowly), Probe(broken), probe)]
    assert [state.result() for state in states] == ["slow", "away", "away"]
    assert DEAD_S <= time.monotonic() - began < DEAD_S + 1
    assert await probe.state() == "away"  # at once: the question stands since then
    assert time.monotonic() - began < DEAD_S + 1
    silence.set()

    async def well() -> bool:
        return await probe.state() == "ok"

    await until(well)
    assert len(asked) == 2
