"""Which windows may be believed: those of the generation in force in their shard, which begins again where something may be lost.

A shard has a sentinel in Redis.  It names the generation, and the server it was begun on, which every script compares with its own.
Postgres remembers the generation begun last: a Redis that was left and is come back to lacks what was committed meanwhile.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence

import structlog

from processor.io.past import Past
from processor.io.redis import Call, Server

log = structlog.get_logger(__name__)
LAYOUT = "w1"
"""Version of keys and members: another layout never reads these."""
NEVER = 2**53 - 1


class Generations:
    """Of the shards of one Redis."""

    def __init__(self, server: Server, past: Past) -> None:
        self._server = server
        self._past = past
        self.sentinels = [f"{LAYOUT}:{{{tag}}}" for tag in server.tags]
        # The tag of the only shard of a single server is one of a cluster's, too.
        self._shards = [f"{tag}/{len(server.tags)}" for tag in server.tags]

    async def open(self) -> None:
        """Forgets those that are not the last ones."""
        last = await self._past.generations(self._shards)
        calls = [
            Call(n, self.sentinels[n], (last.get(shard, "").encode(),))
            for n, shard in enumerate(self._shards)
        ]
        if forgotten := sum(await self._server.run("windows_keep", calls)):
            log.warning("windows_forgotten", shards=forgotten)

    async def bear(self, shards: Iterable[int]) -> None:
        """Begins generations; what absent windows may be trusted past is read after their birth.

        Raises `Retryable` where one would begin on a server that may evict windows.
        """
        fresh = secrets.token_hex(4).encode()
        begun = await self._birth(dict.fromkeys(shards, (fresh, b"", b"")))
        # Before they are in force: what is written to them is written to the last ones.
        await self._past.begun({self._shards[n]: name.decode() for n, name in begun.items()})
        newest = await self._past.newest()
        stored = str(-NEVER if newest is None else newest).encode()
        # Another name: were a sentinel lost meanwhile, the generation begun now must not get what was read before it.
        fresh = secrets.token_hex(4).encode()
        await self._birth({shard: (fresh, name, stored) for shard, name in begun.items()})

    async def _birth(self, births: Mapping[int, Sequence[bytes]]) -> dict[int, bytes]:
        """The generations in force."""
        calls = [Call(shard, self.sentinels[shard], args) for shard, args in births.items()]
        names = await self._server.run("windows_birth", calls)
        return dict(zip(births, names, strict=True))
