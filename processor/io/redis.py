"""The connection to Redis (or Valkey): scripts, the server's identity and its clock, driver errors translated once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from processor.failures import Retryable, StartRefused

_TIMEOUT_S = 2.0
_CLOCK_EVERY_S = 60.0
_HERE = Path(__file__).parent


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Raises `Retryable` for whatever another try may mend."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        if isinstance(error, ResponseError) and str(error).startswith(
            ("WRONGPASS", "NOPERM", "NOAUTH")
        ):
            raise Retryable("redis", f"access denied: {error}") from error
        raise Retryable("redis", f"{type(error).__name__}: {error}") from error


class Server:
    """One Redis server.  Every method raises `Retryable` while it is away."""

    def __init__(self, client: "redis.asyncio.Redis", scripts: dict[str, str]) -> None:
        self._client = client
        self._sources = scripts
        self._digests: dict[str, str] = {}
        self._clock: tuple[float, int] | None = None
        self.identity = b""
        """Process and replication history of the server; another one may have lost writes."""

    @classmethod
    async def connect(cls, url: str) -> "Server":
        """Raises `StartRefused` where the server cannot be used: away, access denied, or free to evict windows."""
        scripts = {path.stem: path.read_text() for path in _HERE.glob("windows_*.lua")}

        async def greet(connection: AbstractConnection) -> None:
            await server._greet(connection)

        try:
            client = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(ConstantBackoff(0.05), 1),
                decode_responses=False,
                redis_connect_func=greet,
                max_connections=16,
            )
        except ValueError as error:
            raise StartRefused(f"REDIS_URL is not a Redis URL: {error}") from error
        server = cls(client, scripts)
        try:
            async with translated():
                memory = await client.info("memory")
        except Retryable as error:
            await server.close()
            raise StartRefused(f"cannot use Redis: {error.reason}; check REDIS_URL") from error
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            await server.close()
            reason = f"Redis may evict windows (maxmemory-policy {policy}): run `CONFIG SET maxmemory-policy noeviction`"
            raise StartRefused(reason)
        return server

    async def close(self) -> None:
        await self._client.aclose()

    async def _greet(self, connection: AbstractConnection) -> None:
        """Learns on every new connection whom it speaks to: after a failover or a restart the answer is another."""
        await connection.on_connect()
        fields: list[bytes] = []
        for section, names in (("server", (b"run_id:",)), ("replication", (b"master_replid:",))):
            await connection.send_command("INFO", section)
            lines: bytes = await connection.read_response()
            fields += [line.strip() for line in lines.splitlines() if line.startswith(names)]
        self.identity = b" ".join(fields)

    async def identify(self) -> None:
        """Asks the server that answers now who it is: its history may have changed behind connections that stand."""
        async with translated():
            server = await self._client.info("server")
            replication = await self._client.info("replication")
        self.identity = (
            f"run_id:{server['run_id']} master_replid:{replication['master_replid']}".encode()
        )

    async def run(self, script: str, key: str, *args: bytes) -> Any:
        """The reply of a script; it has one declared key, the sentinel whose shard all its windows are in."""
        async with translated(), self._leaving_replicas():
            digest = self._digests.get(script)
            if digest is not None:
                try:
                    return await self._client.evalsha(digest, 1, key, *args)
                except NoScriptError:
                    pass  # flushed or another server: loaded again below
            digest = self._digests[script] = await self._client.script_load(self._sources[script])
            return await self._client.evalsha(digest, 1, key, *args)

    @asynccontextmanager
    async def _leaving_replicas(self) -> AsyncIterator[None]:
        """A primary that became a replica keeps its connections: new ones find who is primary now, and its identity."""
        try:
            yield
        except ReadOnlyError:
            await self._client.connection_pool.disconnect()
            raise

    async def now(self) -> int:
        """The server's clock, ms: keys expire by it, whatever clock this machine has."""
        elapsed = time.monotonic()
        if self._clock is None or elapsed - self._clock[0] > _CLOCK_EVERY_S:
            async with translated():
                seconds, micros = await self._client.time()
            self._clock = (elapsed, seconds * 1000 + micros // 1000)
        taken, at = self._clock
        return at + int((elapsed - taken) * 1000)
