"""The client of a cluster: shards are routed to the primaries that serve them, with a plain client for each.

The driver's own cluster client is not used: it may send ASKING on another connection than the command it is for, closes the connections
of calls in flight where one node says CLUSTERDOWN, and refuses to pipeline scripts.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from processor.io.redis_client import FAILURES, Command, Word, address, client_of

SHARDS = 64
"""As many primaries may share the windows.  Another number is another layout of keys."""
_ASTRAY = (
    exceptions.MovedError,
    exceptions.ClusterDownError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    OSError,
)
"""After these it is to be asked anew who serves what."""
_ROUNDS = 2


class Cluster:
    """The primaries of a cluster.  Who serves which shard is asked anew when a call fails or is sent elsewhere."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.tags = _tags(SHARDS)
        self._url = urlsplit(urls[0])
        self._seeds = [address(url) for url in urls]
        self._nodes: dict[str, Redis] = {}
        self._owners: Sequence[str] | None = None
        self._learning = asyncio.Lock()
        self._asked = 0
        self._silent: set[str] = set()
        """Nodes that did not answer when they were last asked."""

    @classmethod
    async def connect(cls, urls: Sequence[str]) -> "Cluster":
        """Raises the driver's failure where no node answers."""
        cluster = cls(urls)
        try:
            await cluster.owners()
        except BaseException:
            await cluster.close()
            raise
        return cluster

    async def owners(self) -> Sequence[str]:
        """The address of the primary of each shard.  Raises the driver's failure where no node tells of all."""
        async with self._learning:
            if self._owners is None:
                self._owners = await self._learned()
            return self._owners

    async def send(self, commands: Sequence[tuple[int, Command]]) -> list[Any]:
        """A pipeline for each node, all at once; what was sent to the wrong one is sent once more."""
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for _ in range(_ROUNDS):
            try:
                owners = await self.owners()
            except FAILURES as error:
                return [error if n in left else answer for n, answer in enumerate(answers)]
            for n, answer in await self._round(commands, left, owners):
                answers[n] = answer
            if any(isinstance(answers[n], _ASTRAY) for n in left):
                self._astray(owners)
            left = [n for n in left if isinstance(answers[n], exceptions.MovedError)]
            if not left:
                break
        return answers

    async def each(self, *command: Word) -> dict[str, Any]:
        """Of the primaries that serve a shard."""
        owners = await self.owners()
        nodes = sorted(set(owners))
        async with asyncio.TaskGroup() as scope:
            asked = [scope.create_task(self._pipelined(node, [command])) for node in nodes]
        answers = [answer for task in asked for answer in task.result()]
        for answer in answers:
            if isinstance(answer, Exception):
                self._astray(owners)
                raise answer
        return dict(zip(nodes, answers, strict=True))

    async def close(self) -> None:
        nodes, self._nodes = self._nodes, {}
        for client in nodes.values():
            await client.aclose()

    def _astray(self, owners: Sequence[str]) -> None:
        """They are not to be relied on, unless others are known by now."""
        if self._owners is owners:
            self._owners = None

    async def _round(
        self, commands: Sequence[tuple[int, Command]], numbers: Iterable[int], owners: Sequence[str]
    ) -> list[tuple[int, Any]]:
        """Number and answer of each of these commands."""
        by_node: dict[str, list[int]] = {}
        for n in numbers:
            by_node.setdefault(owners[commands[n][0]], []).append(n)
        async with asyncio.TaskGroup() as scope:
            asked = [
                (own, scope.create_task(self._asked_of(node, [commands[n][1] for n in own])))
                for node, own in by_node.items()
            ]
        return [pair for own, task in asked for pair in zip(own, task.result(), strict=True)]

    async def _asked_of(self, node: str, commands: Sequence[Command]) -> list[Any]:
        """A slot that is moving: its node says who has the key by now, and that one is to be told why it is asked."""
        answers = await self._pipelined(node, commands)
        for n, answer in enumerate(answers):
            if isinstance(answer, exceptions.AskError):
                other = f"{answer.host or _host(node)}:{answer.port}"
                answers[n] = (await self._pipelined(other, [["ASKING"], commands[n]]))[-1]
        return answers

    async def _pipelined(self, node: str, commands: Sequence[Command]) -> list[Any]:
        try:
            pipeline = self._node(node).pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except FAILURES as error:
            self._silent.add(node)
            return [error] * len(commands)
        self._silent.discard(node)
        return answers

    async def _learned(self) -> Sequence[str]:
        failed: Exception = exceptions.ClusterDownError("no node tells who serves every shard")
        for node in self._to_ask():
            (ranges,) = await self._pipelined(node, [["CLUSTER SLOTS"]])
            if isinstance(ranges, Exception):
                failed = ranges
                continue
            owners = _owners(ranges, node, self.tags)
            if owners is not None:
                await self._forget(set(owners))
                return owners
        raise failed

    def _to_ask(self) -> list[str]:
        """Every node that is known, not the same first every time: one that is cut off tells nothing new."""
        known = list(dict.fromkeys([*self._nodes, *self._seeds]))
        self._asked = (self._asked + 1) % len(known)
        turned = known[self._asked :] + known[: self._asked]
        return sorted(turned, key=self._silent.__contains__)

    async def _forget(self, owners: set[str]) -> None:
        """Closes the clients of nodes that serve no shard any more."""
        for gone in set(self._nodes) - owners:
            await self._nodes.pop(gone).aclose()

    def _node(self, node: str) -> Redis:
        found = self._nodes.get(node)
        if found is None:
            login, at, _ = self._url.netloc.rpartition("@")
            url = urlunsplit(self._url._replace(netloc=f"{login}{at}{node}"))
            found = self._nodes[node] = client_of(url)
        return found


def _tags(shards: int) -> tuple[str, ...]:
    """A tag in each of so many equal ranges of slots: nodes with as many slots have as many shards."""
    found: dict[int, str] = {}
    for number in count():
        tag = str(number)
        found.setdefault(key_slot(tag.encode()) * shards // REDIS_CLUSTER_HASH_SLOTS, tag)
        if len(found) == shards:
            break
    return tuple(found[n] for n in range(shards))


def _owners(ranges: Sequence[Any], told_by: str, tags: Sequence[str]) -> Sequence[str] | None:
    """Who serves the slot of each tag, as CLUSTER SLOTS says: [first, last, [host, port, ...], replicas...]; None where some have nobody."""
    owners: list[str] = []
    for tag in tags:
        slot = key_slot(tag.encode())
        found = next((r[2] for r in ranges if r[0] <= slot <= r[1]), None)
        if found is None:
            return None
        host, port = found[:2]
        owners.append(_address(host.decode() if host else _host(told_by), port))
    return owners


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host(node: str) -> str:
    """Of an address; a node that does not know its own is where it was asked."""
    return node.rpartition(":")[0].strip("[]")
