"""Clients of the live stream, and records for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.harness import Message, World, produce
from tests.harness_waiting import until


@dataclass
class Event:
    """A server-sent event."""

    id: str
    name: str
    data: Any


@dataclass
class Stream:
    """What a client has got so far."""

    response: httpx.Response
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    last_id: str = ""
    """Of the last event or sign of life."""
    ended: bool = False

    def names(self) -> list[str]:
        """Of the events, in order."""
        return [event.name for event in self.events]

    def ids(self) -> list[str]:
        """Of the enriched events that came, in order."""
        return [event.data["id"] for event in self.events if event.name == "new_event"]

    async def has(self, number: int, seconds: float = 10) -> list[Event]:
        """The events once there are so many; AssertionError where there are more."""
        await self.has_at_least(number, seconds)
        assert len(self.events) == number, self.names()
        return self.events

    async def has_at_least(self, number: int, seconds: float = 10) -> None:
        """Returns once there are so many."""
        await until(lambda: len(self.events) >= number, seconds)

    async def read(self) -> None:
        """Until the server ends it."""
        waiting = b""
        with suppress(httpx.HTTPError):
            async for data in self.response.aiter_bytes():
                *blocks, waiting = (waiting + data).split(b"\n\n")
                for block in blocks:
                    self._take(block.decode())
        self.ended = True

    def _take(self, block: str) -> None:
        said = dict(line.split(": ", 1) for line in block.split("\n"))
        self.last_id = said.get("id", self.last_id)
        if "" in said:
            self.comments.append(said[""])
        if "event" in said:
            self.events.append(Event(self.last_id, said["event"], json.loads(said["data"])))


@asynccontextmanager
async def listening(
    client: httpx.AsyncClient, query: str = "", last_id: str | None = None
) -> AsyncIterator[Stream]:
    """A stream whose headers have come; it is read until it is left."""
    headers = [] if last_id is None else [(b"Last-Event-ID", last_id.encode())]
    async with client.stream("GET", f"/stream{query}", headers=headers, timeout=60) as response:
        assert response.status_code == 200, await response.aread()
        stream = Stream(response)
        reading = asyncio.create_task(stream.read())
        try:
            yield stream
        finally:
            reading.cancel()


def enriched(event_id: str, org_unit: str = "acme", **more: Any) -> Message:
    """An enriched event as a worker publishes it."""
    partition = more.pop("partition", None)
    value = {
        "id": event_id,
        "org_unit": org_unit,
        "lead_id": "L",
        "original_lead_id": None,
        "event_type": "Page View",
        "metadata": {"path": "/pricing"},
        "suppression_reason": None,
        "created_at": "2025-01-15T10:30:00.000Z",
        "received_at": "2025-01-15T10:30:00.214Z",
        "suppressed_by": None,
        **more,
    }
    headers = [("event-id", event_id.encode()), ("org-unit", org_unit.encode())]
    text = json.dumps(value, separators=(",", ":")).encode()
    return Message(text, value["lead_id"].encode(), partition, headers=headers)


def merged(event_id: str, **more: Any) -> Message:
    """The event of a merge."""
    metadata = {"source_lead_ids": ["B", "C"], "events_moved": 12, "requested_by": "ann"}
    return enriched(event_id, event_type="Lead Merged", metadata=metadata, **more)


async def publish(world: World, events: Iterable[Message]) -> list[tuple[int, int]]:
    """Puts them on the topic of enriched events."""
    return await produce(world.kafka, world.enriched, events)
