"""The demo's servers: started in the background while everything else is imported, on a directory that goes with them."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread, Timer
from time import monotonic

import psutil

from processor.embedded import Stack
from processor.embedded.processes import alive, children, cut_off, kill_children
from processor.embedded.stack import VARIABLES

KILL_AFTER_S = 2.0
GIVE_UP_AFTER_S = 2.0


class Servers:
    """Kafka, Redis and Postgres; what the environment names is used, the rest is ours.

    `begin` returns at once, `url` waits for one of them; `stop` ends them and removes the directory, of which the logs stay where `keep` is set.
    """

    def __init__(self, given: Mapping[str, str] = os.environ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="processor-demo-"))
        self.keep = False
        self.began = monotonic()
        self.took: dict[str, float] = {}
        """Seconds that each needed."""
        self._given = given
        self._stack = Stack(self.folder / "servers", given)
        self._up: dict[str, Future[None]] = {name: Future() for name in VARIABLES}
        self._thread = Thread(target=self._start, name="servers", daemon=True)
        self._mains: dict[str, psutil.Process] = {}
        self._others = children()  # not ours to end

    def begin(self) -> None:
        """Starts all that the environment does not name."""
        self._thread.start()

    def named(self, name: str) -> bool:
        """Whether it is somebody else's."""
        return bool(self._given.get(VARIABLES[name]))

    async def url(self, name: str) -> str:
        """Where ``kafka``, ``redis`` or ``postgres`` serves, once it does; raises `StartRefused`."""
        await asyncio.shield(asyncio.wrap_future(self._up[name]))
        return str(getattr(self._stack, name))

    @property
    def failed(self) -> BaseException | None:
        """Why one of ours could not be started; then the others are being stopped."""
        return self._stack.failed

    def dead(self) -> list[str]:
        """Those of ours that have ended by themselves."""
        if self.failed:
            return []
        return [name for name, process in self._mains.items() if not alive(process)]

    def log(self, name: str) -> Path:
        """What it wrote."""
        return self.folder / "servers" / name / "log"

    def stop(self) -> bool:
        """Ends the servers, whose data goes too; False where their start is stuck and ends with this process only.

        A start that is under way is cut off, and what does not end by itself within `KILL_AFTER_S` is killed.
        """
        ended = cut_off(self._thread, GIVE_UP_AFTER_S, self._others)
        killing = Timer(KILL_AFTER_S, kill_children, [self._others])
        killing.start()
        try:
            for name in self._mains.keys() - {"postgres"}:  # which gives shared memory back
                self._stack.kill(name)
            self._stack.stop()
        finally:
            killing.cancel()
            self._clear()
        return ended

    def _clear(self) -> None:
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.folder.glob("servers/*/*"):
            if path.name != "log" and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def _start(self) -> None:
        try:
            self._stack.start(self._serves)
        except BaseException as error:
            for waiting in self._up.values():
                if not waiting.done():
                    waiting.set_exception(error)

    def _serves(self, name: str) -> None:
        with suppress(psutil.NoSuchProcess):
            for pid in self._stack.pids[name][:1]:
                self._mains[name] = psutil.Process(pid)
        self.took[name] = monotonic() - self.began
        self._up[name].set_result(None)
