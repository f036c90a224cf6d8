"""A worker or an API as its users run it: a process with an environment, a log, probes and signals."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from processor.embedded.journal import free_port
from processor.embedded.processes import guarded
from processor.failures import Failure

READY_WITHIN_S = 60.0
_POLL_S = 0.05
_ANSWER_S = 2.0


class Service:
    """``processor COMMAND`` as a process in a session of its own: Ctrl-C at the terminal does not reach it.

    It answers its probes on the port that a variable names.
    """

    def __init__(
        self, command: str, environment: Mapping[str, str], log: Path, variable: str
    ) -> None:
        self.name = f"the {command}"
        self.log = log
        self.port = int(environment.get(variable) or 0) or free_port()
        self._command = command
        self._environment = {**environment, variable: str(self.port)}
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """None before it was started."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Returns when it is ready; raises `Failure` when it ends or takes longer than `READY_WITHIN_S`."""
        command = [sys.executable, "-m", "processor", self._command]
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *guarded(command, signal.SIGKILL, None),
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while (await self._get("/readyz"))[0] != 200:  # noqa: PLR2004
                    if self._process.returncode is not None:
                        raise self._failure(f"ended with exit code {self._process.returncode}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise self._failure(f"is not ready within {READY_WITHIN_S:g} s") from error

    async def watch(self) -> None:
        """Raises `Failure` when it ends; returns never."""
        if self._process:
            raise self._failure(f"ended with exit code {await self._process.wait()}")

    async def stop(self, seconds: float) -> int:
        """SIGTERM, and SIGKILL after `seconds`; the exit code."""
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()

    async def metrics(self) -> dict[str, float]:
        """The sum of each metric over its labels; empty where it does not answer."""
        sums: dict[str, float] = {}
        for line in (await self._get("/metrics"))[1].splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def _failure(self, what: str) -> Failure:
        return Failure(f"{self.name} {what}; its log: {self.log}")

    async def _get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nothing answers."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: loopback\r\nConnection: close\r\n\r\n".encode()
                )
                try:
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
            return (int(head.split()[1]) if head else 0), body.decode()
        return 0, ""
