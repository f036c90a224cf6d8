"""The servers of a fault run: the embedded stack, whose Kafka has a second listener that is advertised as the proxy's port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from processor.embedded import Stack
from processor.embedded.journal import Journal, free_port
from processor.embedded.processes import Spawner
from processor.embedded.recipes import FAST_START, LOOPBACK, Kafka, Recipe
from processor.embedded.servers import Process

HEAP = "512m"


@dataclass(frozen=True)
class ProxiedKafka(Kafka):
    """Clients of the second listener are told to come back through the proxy, whatever they ask for."""

    behind: int = 0
    """The port of the second listener."""
    proxy: int = 0
    """The port that it is known by."""

    def _properties(self) -> str:
        plain = super()._properties()
        listeners = f"PLAINTEXT://{self.url},PROXIED://{LOOPBACK}:{self.behind}"
        advertised = f"PLAINTEXT://{self.url},PROXIED://{LOOPBACK}:{self.proxy}"
        return (
            plain.replace(f"\nlisteners=PLAINTEXT://{self.url}", f"\nlisteners={listeners}")
            .replace(
                f"advertised.listeners=PLAINTEXT://{self.url}", f"advertised.listeners={advertised}"
            )
            .replace("PLAINTEXT:PLAINTEXT\n", "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT\n")
        )


class FaultStack(Stack):
    """Servers of our own, which may be struck; whatever the environment names stays untouched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, heap=HEAP)
        self.behind, self.proxy = free_port(), free_port()

    def _recipe(self, name: str, journal: Journal) -> Recipe:
        if name != "kafka":
            return super()._recipe(name, journal)
        return ProxiedKafka(
            self._folder / name,
            journal.port("kafka"),
            journal.port("controller"),
            HEAP,
            FAST_START,
            self.behind,
            self.proxy,
        )


@asynccontextmanager
async def beside(recipe: Recipe) -> AsyncIterator[Process]:
    """One more server, beside the stack's, for as long as the block runs."""
    server = Process("beside", recipe, Journal(recipe.folder), Spawner())
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)
