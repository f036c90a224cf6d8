"""The three ways to have a server: named by the environment, a process of ours, or a container."""

import signal
from pathlib import Path
from typing import Protocol

import psutil

from processor.embedded.journal import Journal
from processor.embedded.processes import (
    Spawner,
    end,
    find,
    gone,
    guarded,
    listens,
    owner,
    send,
    stopped,
    tree,
    wait,
)
from processor.embedded.recipes import Recipe
from processor.failures import StartRefused

START_WITHIN_S = 60.0
STOP_WITHIN_S = 4.0
_EVERYONE = {signal.SIGSTOP, signal.SIGCONT}
_LOG_TAIL = 2000


class Server(Protocol):
    """One server of a stack."""

    @property
    def url(self) -> str: ...
    @property
    def pids(self) -> list[int]:
        """Its processes on this machine, the main one first; empty where it has none here."""

    def start(self) -> None:
        """Returns when it serves; raises `StartRefused` when it does not come up."""

    def stop(self) -> None:
        """Ends it, killing what is left after `STOP_WITHIN_S`; a stopped server stays as it is."""

    def kill(self, number: int) -> None:
        """Sends a signal."""


def end_leftovers(journal: Journal) -> None:
    """Ends what a killed owner has left behind, so that its ports and files are free."""
    for name, left in journal.running().items():
        process = find(*left)
        if process:
            end(process, signal.SIGTERM, STOP_WITHIN_S)
        journal.stopped(name)


class Named:
    """A server that the environment names: it is somebody else's."""

    pids: list[int] = []  # noqa: RUF012  # never filled

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""

    def kill(self, number: int) -> None:
        """Raises: nobody may signal somebody else's server."""
        raise StartRefused(f"{self.url} is not a server of this stack; signal {number} is not sent")


class Process:
    """A server in a process of ours, its log and data in its folder."""

    def __init__(self, name: str, recipe: Recipe, journal: Journal, spawner: Spawner) -> None:
        self._name = name
        self._recipe = recipe
        self._journal = journal
        self._spawner = spawner
        self._process: psutil.Popen | None = None

    @property
    def url(self) -> str:
        """Fixed as long as the data directory is."""
        return self._recipe.url

    @property
    def pids(self) -> list[int]:
        """The main process and its children."""
        return [p.pid for p in tree(self._process)] if self._process else []

    @property
    def _log(self) -> Path:
        return self._recipe.folder / "log"

    def start(self) -> None:
        """Prepares, starts and waits; what still runs is ended first."""
        self.stop()
        self._recipe.folder.mkdir(exist_ok=True)
        self._recipe.prepare()
        account = None if self._recipe.as_root else owner()
        command = guarded(self._recipe.command(), self._recipe.stop, account)
        self._process = process = self._spawner.start(command, self._log)
        self._journal.started(self._name, process.pid, process.create_time())
        wait(lambda: process.poll() is not None or self._serves(process), START_WITHIN_S)
        if not self._serves(process):
            self.stop()
            tail = self._log.read_text(errors="replace")[-_LOG_TAIL:]
            raise StartRefused(f"{self._name} does not come up; the end of {self._log}:\n{tail}")

    def _serves(self, process: psutil.Process) -> bool:
        return listens(process, self._recipe.port) and self._recipe.ready()

    def stop(self) -> None:
        """Ends the process and all below it."""
        if self._process:
            end(self._process, self._recipe.stop, STOP_WITHIN_S)
            self._process.wait()
            self._process = None
        self._journal.stopped(self._name)

    def kill(self, number: int) -> None:
        """Freezing and thawing reach all processes of the server, every other signal the main one.

        When it returns, a killed server has gone and a frozen one stands still.
        """
        if self._process is None:
            return
        family = tree(self._process)
        send(family if number in _EVERYONE else family[:1], number)
        if number == signal.SIGSTOP:
            wait(lambda: all(map(stopped, family)), STOP_WITHIN_S)
        if number == signal.SIGKILL:
            self._process.wait()
            gone(family, STOP_WITHIN_S)
