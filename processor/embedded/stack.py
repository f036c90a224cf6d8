"""Kafka, Valkey and Postgres as one: started and stopped together, or one by one under a fault test.

An explicit URL in the environment always wins; with all three of them a stack starts nothing.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from processor.embedded.journal import Journal
from processor.embedded.processes import Spawner
from processor.embedded.recipes import FAST_START, UNDER_LOAD, Kafka, Postgres, Recipe, Valkey
from processor.embedded.servers import Named, Process, Server, end_leftovers
from processor.failures import StartRefused

VARIABLES = {
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "redis": "REDIS_URL",
    "postgres": "DATABASE_URL",
}


class Stack:
    """Three servers on the data directory `folder`; a second stack on it gets the same URLs and data.

    `given` is the environment: its URLs win, and ``STACK=containers`` asks for Docker.  `heap`, `jvm` and `postgres`, further settings
    of Postgres, are for processes alone.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, str] = os.environ,
        *,
        heap: str = "512m",
        jvm: Iterable[str] = FAST_START,
        postgres: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder = folder.resolve()
        self._given = given
        self._kafka_options = (heap, tuple(jvm))
        self._postgres_settings = postgres
        self._journal: Journal | None = None
        self._servers: dict[str, Server] = {}
        self.failed: BaseException | None = None
        """Why its start failed, known before the servers that did come up are stopped again."""

    @classmethod
    def under_load(cls, folder: Path, given: Mapping[str, str] = os.environ) -> Self:
        """One that has to keep up for long: its compiler, its heap and its caches are those of production."""
        return cls(folder, given, heap="1g", jvm=("-Xms1g",), postgres=UNDER_LOAD)

    def start(self, serves: Callable[[str], None] = lambda _: None) -> None:
        """All at once; returns when all serve.  Raises `StartRefused`, and then nothing runs.

        `serves` hears the name of each server that is up, in a thread of its own.
        """
        given = {name: self._given.get(variable, "") for name, variable in VARIABLES.items()}
        self._servers = {name: Named(url) for name, url in given.items() if url}
        try:
            self._own([name for name, url in given.items() if not url])
            self._each(partial(self._start_one, serves))
        except BaseException as error:
            self.failed = error
            self.stop()
            raise

    def stop(self) -> None:
        """All at once, within some 4 s; no process is left."""
        try:
            self._each(self.stop_one)
        finally:
            if self._journal:
                self._journal.release()

    def start_one(self, name: str) -> None:
        """Starts ``kafka``, ``redis`` or ``postgres`` again after `stop_one` or `kill`."""
        self._servers[name].start()

    def stop_one(self, name: str) -> None:
        """Ends one as `stop` does."""
        self._servers[name].stop()

    def restart(self, name: str) -> None:
        """Ends one cleanly and starts it again, under the same URL."""
        self.stop_one(name)
        self.start_one(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to one; SIGSTOP and SIGCONT freeze and thaw all its processes."""
        self._servers[name].kill(number)

    @property
    def kafka(self) -> str:
        """Bootstrap servers."""
        return self._servers["kafka"].url

    @property
    def redis(self) -> str:
        """URL as redis-py takes it."""
        return self._servers["redis"].url

    @property
    def postgres(self) -> str:
        """URL of a database where new ones may be created."""
        return self._servers["postgres"].url

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of each server, the main one first."""
        return {name: server.pids for name, server in self._servers.items()}

    def environment(self) -> dict[str, str]:
        """The variables that bring a processor here."""
        return {variable: self._servers[name].url for name, variable in VARIABLES.items()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _own(self, names: list[str]) -> None:
        """Takes the directory, where there is anything to start in it."""
        if names:
            self._journal = Journal(self._folder)
            self._journal.own()
            end_leftovers(self._journal)
            self._servers |= self._made(names, self._journal)

    def _made(self, names: Iterable[str], journal: Journal) -> dict[str, Server]:
        match self._given.get("STACK", "") or "processes":
            case "processes":
                spawner = Spawner()
                return {n: Process(n, self._recipe(n, journal), journal, spawner) for n in names}
            case "containers":
                from processor.embedded.containers import containers  # noqa: PLC0415  # an extra

                return containers(names, journal)
            case other:
                raise StartRefused(
                    f"STACK={other}: it is `processes` (the default) or `containers`"
                )

    def _recipe(self, name: str, journal: Journal) -> Recipe:
        folder = self._folder / name
        match name:
            case "kafka":
                heap, jvm = self._kafka_options
                return Kafka(folder, journal.port("kafka"), journal.port("controller"), heap, jvm)
            case "redis":
                return Valkey(folder, journal.port("redis"), journal.password)
            case _:
                port, settings = journal.port("postgres"), self._postgres_settings
                return Postgres(folder, port, journal.password, settings)

    def _start_one(self, serves: Callable[[str], None], name: str) -> None:
        self.start_one(name)
        serves(name)

    def _each(self, do: Callable[[str], None]) -> None:
        """Does it to all servers at once; raises the first failure when all have been tried."""
        with ThreadPoolExecutor(len(VARIABLES)) as pool:
            for done in [pool.submit(do, name) for name in self._servers]:
                done.result()


@asynccontextmanager
async def stack(
    folder: Path,
    given: Mapping[str, str] = os.environ,
    *,
    heap: str = "512m",
    jvm: Iterable[str] = FAST_START,
) -> AsyncIterator[Stack]:
    """A started `Stack` for as long as the block runs."""
    servers = Stack(folder, given, heap=heap, jvm=jvm)
    await asyncio.to_thread(servers.start)
    try:
        yield servers
    finally:
        await asyncio.to_thread(servers.stop)
