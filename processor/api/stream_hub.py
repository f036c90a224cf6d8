"""The clients of the live stream of this process: who gets which record, and who may go on.

A record is looked at once and rendered once, whoever gets it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

from msgspec import Struct

from processor import telemetry
from processor.api.auth import Tokens
from processor.api.errors import RETRY_AFTER_S, Refused
from processor.api.stream_client import Client
from processor.failures import Retryable
from processor.io.kafka import Cluster
from processor.io.pages import Pages
from processor.io.tail import Tail
from processor.pure.frames import Frame, Read, keep_alive, org_unit_of, render, reset
from processor.pure.position import Lost, Position

START_S = 5.0
SCOPE = "events:read"
CHECK_S = 0.5
"""How often tokens are looked at again."""
CONFIRMED_S = 1.0
"""How long that may take before nothing is sent to their bearers.  With the time a token is believed this is under 5 s."""


class Manner(Struct, frozen=True):
    """How streams are kept open."""

    most_clients: int = 1_000
    keep_alive_s: float = 15.0
    retry_ms: int = 2_000
    """When a client that lost its connection shall come back."""
    stalled_s: float = 30.0
    """A client that takes nothing for so long is too slow, however little waits for it."""


class Hub:
    """Hands over what the tail reads."""

    def __init__(self, tail: Tail, pages: Pages, tokens: Tokens) -> None:
        self.manner = Manner()
        self.tail = tail
        self.pages = pages
        self._tokens = tokens
        self._admitted: set[Client] = set()
        self._by_org_unit: defaultdict[str, set[Client]] = defaultdict(set)
        self._closed = False
        self._holds = False
        self._keep_alive: tuple[Position, bytes] | None = None

    def __len__(self) -> int:
        return len(self._admitted)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._admitted)

    async def admit(self, client: Client) -> None:
        """Counts the client, which must `leave`; raises `Refused`, and `Retryable` where Kafka was not there yet."""
        if self._closed or len(self._admitted) >= self.manner.most_clients:
            raise Refused(
                503, "This process serves no more streams", {"Retry-After": RETRY_AFTER_S}
            )
        self._admitted.add(client)
        if self._holds:
            client.allowed.clear()
        telemetry.STREAM_CLIENTS.inc()
        try:
            async with asyncio.timeout(START_S):
                await self.tail.started()
        except BaseException as error:
            self.leave(client)
            if isinstance(error, TimeoutError):
                raise Retryable("kafka", "the stream has not begun yet") from error
            raise

    def join(self, client: Client) -> Position:
        """From this position on the client is given everything."""
        self._by_org_unit[client.principal.org_unit].add(client)
        return self.tail.position

    def leave(self, client: Client) -> None:
        """Forgets the client."""
        if client not in self._admitted:
            return
        self._admitted.remove(client)
        telemetry.STREAM_CLIENTS.dec()
        org_unit = client.principal.org_unit
        self._by_org_unit[org_unit].discard(client)
        if not self._by_org_unit[org_unit]:
            del self._by_org_unit[org_unit]

    def cut_off(self, client: Client) -> None:
        """Ends a client that is too slow."""
        client.end("slow")
        telemetry.STREAM_CUT_OFF.inc()

    def read(self, before: Position, record: Read) -> None:
        """Gives a record to those who want it."""
        if not self._by_org_unit:
            return
        org_unit = org_unit_of(record)
        clients = self._by_org_unit.get(org_unit) if org_unit else None
        if clients:
            for frame in render(before, record)[1]:
                self._offer(clients, frame)

    def lost(self, why: Lost) -> None:
        """Tells everybody."""
        frame = reset(why, self.tail.position)
        for clients in self._by_org_unit.values():
            self._offer(clients, frame)

    def keep_alive(self) -> bytes:
        """For clients that have had everything up to now."""
        position = self.tail.position
        if self._keep_alive is None or self._keep_alive[0] is not position:
            self._keep_alive = position, keep_alive(position)
        return self._keep_alive[1]

    async def end_when(self, stopping: asyncio.Event) -> None:
        """Ends every client when the process is asked to end, and admits no other."""
        await stopping.wait()
        self._closed = True
        for client in list(self._admitted):
            client.end("stopping")

    async def check_tokens(self) -> None:
        """For ever: ends clients whose token is not in force any more.

        While Postgres does not answer nobody is sent anything, for any token may have been revoked.
        """
        while True:
            await asyncio.sleep(CHECK_S)
            async with asyncio.TaskGroup() as tasks:
                checking = tasks.create_task(self._check_all())
                _, late = await asyncio.wait({checking}, timeout=CONFIRMED_S)
                if late:  # it goes on: asyncpg may not come back from a call that is given up
                    self._hold()

    def _offer(self, clients: Iterable[Client], frame: Frame) -> None:
        for client in clients:
            if not client.offer(frame):
                self.cut_off(client)

    async def _check_all(self) -> None:
        bearers: defaultdict[str, list[Client]] = defaultdict(list)
        for client in self._admitted:
            bearers[client.principal.token].append(client)
        for token, clients in bearers.items():
            try:
                principal = await self._tokens.principal(token)
            except Retryable:
                self._hold()
                return
            for client in clients:
                if principal is None or SCOPE not in principal.scopes:
                    client.end("unauthorized")
                client.allowed.set()
        self._holds = False

    def _hold(self) -> None:
        self._holds = True
        for client in self._admitted:
            client.allowed.clear()


@asynccontextmanager
async def running(cluster: Cluster, tokens: Tokens, stopping: asyncio.Event) -> AsyncIterator[Hub]:
    """A hub that follows the topics of enriched events and of engagement."""
    settings = cluster.settings
    names = (settings.enriched_topic, settings.engagement_topic)
    hub = Hub(Tail(cluster, names), Pages(cluster, names), tokens)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        work = (hub.tail.run(hub), hub.check_tokens(), hub.end_when(stopping))
        started = [tasks.create_task(each) for each in work]
        try:
            yield hub
        except Exception as error:
            failure = error
        finally:
            for task in started:
                task.cancel()
            await hub.pages.close()
    if failure:
        raise failure
