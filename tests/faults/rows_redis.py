"""Redis forgets, dies, hangs, loses what it acknowledged, and is full."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from processor.embedded.journal import free_port
from processor.embedded.recipes import Valkey
from processor.io.windows_generations import LAYOUT
from tests import harness
from tests.faults.field import Field
from tests.faults.matrix import Bitten, row
from tests.faults.proxy import Proxy, proxied
from tests.faults.servers import beside
from tests.faults.steps import go_down, goes_on, stands_still, unready

AWAY = "redis is away"
REBUILDS = "processor_window_rebuilds_total"
FLUSHES = 12
FROZEN_S = 5.0
"""Longer than a client waits."""


def client(url: str) -> Any:
    """To be closed."""
    return redis.Redis.from_url(url)


@row(f"Redis flushed {FLUSHES} times, data and scripts")
async def flushed(field: Field) -> Bitten:
    """FLUSHALL and SCRIPT FLUSH in mid-load: windows are built again from Postgres."""
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        before = await field.metric(REBUILDS)
        for _ in range(FLUSHES):
            await goes_on(field, 4)
            with client(field.world.redis) as server:
                server.flushall()
                server.script_flush()
        await goes_on(field)
    field.heal()
    return Bitten(await field.metric(REBUILDS) - before, "windows built again")


@row("Redis killed and started again, 3 times")
async def killed(field: Field) -> Bitten:
    """SIGKILL: lanes wait, readiness says so, and all windows are gone when it is back."""
    await field.start(2)
    async with field.sending():
        await go_down(field, "redis", signal.SIGKILL, 3)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@row(f"Redis frozen for {FROZEN_S:g} s, twice")
async def frozen(field: Field) -> Bitten:
    """SIGSTOP: what was sent meanwhile it does when it wakes up, long after lanes have given up on the answer."""
    await field.start(2)
    async with field.sending():
        for _ in range(2):
            await goes_on(field)
            field.stack.kill("redis", signal.SIGSTOP)
            try:
                await unready(field, AWAY)
                await stands_still(field, FROZEN_S)
            finally:
                field.stack.kill("redis", signal.SIGCONT)
        await goes_on(field)
    field.heal()
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@row("Redis fails over to a replica that lacks acknowledged writes")
async def failed_over(field: Field) -> Bitten:
    """Replication is cut, writes go on, the replica is promoted: it is another server, so windows are built again."""
    front = await field.through("redis")
    standby = await field.keep(replica(field))
    await field.start(2)
    async with field.sending():
        await goes_on(field)
        standby.link.refuse()
        await goes_on(field, 5 * 8)
        before = await field.metric(REBUILDS)
        with client(standby.url) as promoted, client(field.world.redis) as deposed:
            promoted.replicaof("NO", "ONE")
            lost = members(deposed) - members(promoted)
        front.target = urlsplit(standby.url).port or 0
        front.cut()
        field.world = replace(field.world, redis=standby.url)
        await goes_on(field)
    field.heal()
    assert await field.metric(REBUILDS) > before, "nothing was built again"
    return Bitten(lost, "acknowledged writes lost")


@row("Redis full")
async def full(field: Field) -> Bitten:
    """Its memory is used up: lanes wait and say so, and go on when it has more."""
    await field.start(2)
    with client(field.world.redis) as server:
        allowed = server.config_get("maxmemory")["maxmemory"]
        async with field.sending():
            await goes_on(field)
            server.config_set("maxmemory", server.info("memory")["used_memory"])
            try:
                await unready(field, AWAY)
                await stands_still(field)
                assert await field.metric("processor_waiting") > 0
            finally:
                server.config_set("maxmemory", allowed)
            await goes_on(field)
        field.heal()
    assert any("OutOfMemory" in worker.output for worker in field.workers)
    return Bitten(field.logged("dependency_away"), "times workers waited for it")


@dataclass(frozen=True)
class Standby:
    """A replica; `url` names the world's logical database on it."""

    url: str
    link: Proxy
    """Replication passes here."""


@asynccontextmanager
async def replica(field: Field) -> AsyncIterator[Standby]:
    """Of the world's Redis, in sync."""
    primary = urlsplit(field.world.redis)
    password = primary.password or ""
    recipe = Valkey(field.folder / "replica", free_port(), password)
    url = urlunsplit(urlsplit(recipe.url)._replace(path=primary.path))
    async with proxied(primary.port or 0) as link, beside(recipe):
        with client(url) as server, client(field.world.redis) as source:
            delay = source.config_get("repl-diskless-sync-delay")["repl-diskless-sync-delay"]
            source.config_set("repl-diskless-sync-delay", 0)
            try:
                server.config_set("masterauth", password)
                server.replicaof("127.0.0.1", link.port)
                await harness.until(
                    lambda: server.info("replication")["master_link_status"] == "up", 20
                )
            finally:
                source.config_set("repl-diskless-sync-delay", delay)
            yield Standby(url, link)


def members(server: Any) -> int:
    """Of all windows together."""
    return sum(server.zcard(key) for key in server.scan_iter(match=f"{LAYOUT}:*", _type="zset"))
