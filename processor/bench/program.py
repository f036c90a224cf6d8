"""A contender as a process: started, watched and ended; it ends with this one at the latest."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from processor.embedded.processes import guarded
from processor.failures import Failure

STOPPED_WITHIN_S = 35.0
_SHOWN = 4_000


class Program:
    """A command with an environment; its output goes to `log`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                guarded(self._command, signal.SIGKILL, None),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the started process."""
        if self._process is None:
            raise Failure("the contender is not started")
        return self._process.pid

    def check(self) -> None:
        """Raises `Failure` with the end of what it wrote where it has ended."""
        if self._process and self._process.poll() is not None:
            said = self._log.read_text(errors="replace")[-_SHOWN:]
            raise Failure(f"{' '.join(self._command[:4])} … ended by itself:\n{said}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        if self._process and self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            await asyncio.to_thread(self._wait, STOPPED_WITHIN_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; nothing where it has ended."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def _wait(self, seconds: float) -> None:
        try:
            if self._process:
                self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
