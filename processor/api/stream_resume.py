"""Coming back to the live stream: everything since the last event a client has had, then live, nothing twice.

What is far away is read before the client joins, so that few live events have to wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from processor.api.stream_client import Client
from processor.api.stream_hub import Hub
from processor.failures import Retryable
from processor.io.pages import Gone
from processor.pure.frames import Frame, Read, org_unit_of, render, reset
from processor.pure.position import Lost, Position, adopted, advanced, ahead, behind

NEAR = 500
"""Offsets that may be left to read when a client joins."""
TRY_AGAIN_S = 1.0

T = TypeVar("T")


async def resume(hub: Hub, client: Client, since: Position | None) -> None:
    """Until the client has everything it missed and is live; where that cannot be, it is told and live from now on."""
    joined: Position | None = None
    found = await _found(hub, since)
    if isinstance(found, Position):
        way = _Way(hub, client, found)
        lost = await way.walk(NEAR)
        if lost is None:
            joined = hub.join(client)
            lost = await way.walk_to(joined)
    else:
        lost = found
    if lost is not None:
        joined = joined or hub.join(client)
        await client.replay([reset(lost, joined)])
    client.go_live()


async def _found(hub: Hub, since: Position | None) -> "Position | Lost":
    """The position among the partitions there are, once the tail is not behind it."""
    if since is None:
        return "unknown"
    found = adopted(since, hub.tail.position)
    if isinstance(found, Position) and await _is_past_the_end(hub, found):
        return "ahead"
    return await hub.tail.reached(since)


async def _is_past_the_end(hub: Hub, position: Position) -> bool:
    needed = ahead(position, hub.tail.position)
    return bool(needed) and await _patiently(lambda: hub.pages.past_the_end(needed))


class _Way:
    """From where a client was to where the tail is."""

    def __init__(self, hub: Hub, client: Client, since: Position) -> None:
        self._hub = hub
        self._client = client
        self._since = since

    async def walk(self, near: int) -> Lost | None:
        """Until at most so many offsets are left; why it ends before that, where it does."""
        if sent := self._since.sent:  # a record of which half is sent comes first
            after = advanced(self._since, sent.place, self._since.next(sent.place) + 1)
            if lost := await self.walk_to(after):
                return lost
        while not (lost := self._follow()):
            target = self._hub.tail.position
            if self._distance(target) <= near:
                return None
            if lost := await self._page(target):
                return lost
        return lost

    async def walk_to(self, target: Position) -> Lost | None:
        """The whole way; why it ends before that, where it does."""
        while not (lost := self._follow()):
            if not behind(self._since, target):
                return None
            if lost := await self._page(target):
                return lost
        return lost

    def _follow(self) -> Lost | None:
        """Takes up partitions that the tail has found meanwhile; why there is no going on, where it has found another topic."""
        found = adopted(self._since, self._hub.tail.position)
        if not isinstance(found, Position):
            return found
        self._since = found
        return None

    def _distance(self, target: Position) -> int:
        return sum(after - first for first, after in behind(self._since, target).values())

    async def _page(self, target: Position) -> Lost | None:
        """Nothing of it where Kafka does not answer: until it does again, the topic may have become another one."""
        try:
            page = await self._hub.pages.read(self._since, target, self._mine)
        except Gone:
            return "expired"
        except Retryable:
            await asyncio.sleep(TRY_AGAIN_S)
            return None
        frames: list[Frame] = []
        for record in page.records:
            self._since, more = render(self._since, record)
            frames.extend(more)
        self._since = page.reached
        await self._client.replay(frames)
        return None

    def _mine(self, record: Read) -> bool:
        return org_unit_of(record) == self._client.principal.org_unit


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Again until Kafka answers."""
    while True:
        try:
            return await ask()
        except Retryable:
            await asyncio.sleep(TRY_AGAIN_S)
