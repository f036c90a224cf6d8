"""What speaks to Redis: the client of one server, and what it has in common with that of a cluster (redis_cluster.py)."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ReadOnlyError, RedisError

from processor.failures import StartRefused

FAILURES = (RedisError, OSError)
"""Whatever the driver raises where a server does not answer as it should."""
_TIMEOUT_S = 2.0
_CONNECTIONS = 16

Word: TypeAlias = bytes | str | int
Command: TypeAlias = Sequence[Word]


class Client(Protocol):
    """One server, or the primaries of a cluster.  Failures are the driver's."""

    @property
    def tags(self) -> Sequence[str]:
        """The hash tag of each shard."""

    async def send(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """What each command is answered in its shard; a failure is an answer too."""

    async def each(self, *command: Word) -> dict[str, Any]:
        """What every server that takes writes answers, by its address."""

    async def close(self) -> None: ...


class Single:
    """One server, which has one shard."""

    tags = ("0",)

    def __init__(self, url: str) -> None:
        self.redis = client_of(url)
        self._address = address(url)

    async def send(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """One after the other: each holds up the server."""
        return [await self._answer(command) for _, command in commands]

    async def each(self, *command: Word) -> dict[str, Any]:
        """Of the one."""
        return {self._address: await self.redis.execute_command(*command)}

    async def close(self) -> None:
        await self.redis.aclose()

    async def _answer(self, command: Command) -> Any:
        try:
            return await self.redis.execute_command(*command)
        except ReadOnlyError as error:
            # A primary that became a replica keeps its connections: new ones find who is primary now.
            await self.redis.connection_pool.disconnect()
            return error
        except FAILURES as error:
            return error


def client_of(url: str) -> Redis:
    """Raises `StartRefused` where it is no URL of Redis."""
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(ConstantBackoff(0.05), 1),
            decode_responses=False,
            max_connections=_CONNECTIONS,
        )
        pool.make_connection()  # it connects to nothing yet, but takes no parameter that it does not know
    except ValueError as error:
        raise StartRefused(f"REDIS_URL is not a Redis URL: {error}") from error
    except (TypeError, AttributeError) as error:  # the latter of one that no URL can give: retry=3
        raise StartRefused(
            "REDIS_URL has a parameter that such a connection does not take; those of TLS are for"
            " rediss:// alone"
        ) from error
    return Redis.from_pool(pool)


def address(url: str) -> str:
    """Host and port of a URL, or the path of its socket."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path
