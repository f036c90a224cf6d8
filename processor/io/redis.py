"""The connection to Redis (or Valkey), one server or a cluster: scripts, clock, driver errors translated once."""

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import NoScriptError, ResponseError

from processor.failures import Retryable, StartRefused
from processor.io.redis_client import FAILURES, Client, Single, address
from processor.io.redis_cluster import Cluster
from processor.setting_values import redis_urls

_CLOCK_EVERY_S = 60.0
_HERE = Path(__file__).parent
_SCRIPTS = (
    *("windows_keep", "windows_birth", "windows_read"),
    *("windows_begin", "windows_fill", "windows_write"),
)


class Call(Struct, frozen=True):
    """A script in a shard, which is that of its one declared key."""

    shard: int
    key: str
    args: Sequence[bytes]


class Node(Struct, frozen=True):
    """A server that holds windows."""

    address: str
    policy: str
    """What it does when its memory is full: all but `noeviction` loses windows unnoticed."""
    used_bytes: int
    limit_bytes: int
    """0: none."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises `Retryable` for whatever another try may mend."""
    try:
        yield
    except FAILURES as error:
        if isinstance(error, ResponseError) and str(error).startswith(
            ("WRONGPASS", "NOPERM", "NOAUTH")
        ):
            raise Retryable("redis", f"access denied: {error}") from error
        raise Retryable("redis", f"{type(error).__name__}: {error}") from error


class Server:
    """One Redis server, or a cluster.  Every method raises `Retryable` while what it needs of it is away."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._sources = {name: _source(name) for name in _SCRIPTS}
        self._digests = {
            name: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            for name, source in self._sources.items()
        }
        self._clock: tuple[float, int] | None = None

    @classmethod
    async def connect(cls, url: str) -> "Server":
        """Raises `StartRefused` where it cannot be used: away, access denied, or free to evict windows."""
        try:
            async with translated():
                server = cls(await connected(url))
        except Retryable as error:
            raise StartRefused(f"cannot use Redis: {error.reason}; check REDIS_URL") from error
        try:
            await server._refuse_eviction()
        except BaseException:
            await server.close()
            raise
        return server

    async def close(self) -> None:
        await self.client.close()

    @property
    def tags(self) -> Sequence[str]:
        """The hash tag of each shard."""
        return self.client.tags

    async def run(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """The reply of the script to each call."""
        digest = self._digests[script]
        async with translated():
            replies = await self._send("EVALSHA", digest, calls)
            unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:  # flushed, or another server
                again = await self._send("EVAL", self._sources[script], [calls[n] for n in unknown])
                for n, reply in zip(unknown, again, strict=True):
                    replies[n] = reply
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    async def now(self) -> int:
        """The clock by which keys expire, ms, whatever this machine has; of several the one furthest ahead."""
        elapsed = time.monotonic()
        if self._clock is None or elapsed - self._clock[0] > _CLOCK_EVERY_S:
            async with translated():
                times = (await self.client.each("TIME")).values()
            self._clock = (elapsed, max(s * 1000 + micros // 1000 for s, micros in times))
        taken, at = self._clock
        return at + int((elapsed - taken) * 1000)

    async def nodes(self) -> list[Node]:
        """The servers that take writes, as they are set up now."""
        async with translated():
            told = await self.client.each("INFO", "memory")
        return [
            Node(
                node,
                memory.get("maxmemory_policy", "noeviction"),
                memory.get("used_memory", 0),
                memory.get("maxmemory", 0),
            )
            for node, memory in told.items()
        ]

    async def _send(self, command: str, script: str, calls: Sequence[Call]) -> list[Any]:
        return await self.client.send(
            [(call.shard, (command, script, 1, call.key, *call.args)) for call in calls]
        )

    async def _refuse_eviction(self) -> None:
        try:
            nodes = await self.nodes()
        except Retryable as error:
            raise StartRefused(f"cannot use Redis: {error.reason}; check REDIS_URL") from error
        for node in nodes:
            if node.policy != "noeviction":
                raise StartRefused(
                    f"Redis at {node.address} may evict windows (maxmemory-policy {node.policy}):"
                    " run `CONFIG SET maxmemory-policy noeviction` there"
                )


async def connected(url: str) -> Client:
    """A client of what is there: the first server named that answers says whether it is one of a cluster."""
    urls = redis_urls(url)
    failed: Exception = Unreachable("no server is named")
    for one in urls:
        single = Single(one)
        try:
            about = await single.redis.info("cluster")
        except FAILURES as error:
            failed = error
            await single.close()
            continue
        if not about.get("cluster_enabled") and len(urls) == 1:
            return single
        await single.close()
        if about.get("cluster_enabled"):
            return await Cluster.connect(urls)
        raise StartRefused(
            f"REDIS_URL names several servers, which is for a cluster, and {address(one)} is of none"
        )
    raise failed


def _source(script: str) -> str:
    """Every script begins alike: with who the server is and what is in force."""
    return (_HERE / "windows_shard.lua").read_text() + (_HERE / f"{script}.lua").read_text()
