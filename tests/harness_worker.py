"""The processor as its users run it: a process with an environment, signals, output and probes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processor.embedded.journal import free_port
from processor.embedded.processes import guarded
from tests.harness_waiting import until


@dataclass
class Worker:
    """``python -m processor COMMAND`` as a process; it ends with this one at the latest."""

    environment: Mapping[str, str]
    log: Path
    command: Sequence[str] = ("worker",)
    metrics_port: int = field(default_factory=free_port)
    module: str = "processor"
    program: Path | None = None
    """The folder whose code runs; this one's by default."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; its output goes to `log`."""
        own = {
            "METRICS_PORT": str(self.metrics_port),
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", self.module, *self.command]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                guarded(command, signal.SIGKILL, None),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **own, **self.environment},
                cwd=self.program,
            )

    async def ready(self, seconds: float = 20) -> None:
        """Returns when it says it is ready; AssertionError with its output when it ends or takes longer."""

        async def answer() -> bool:
            assert self.running, f"it ended with {self.returncode}:\n{self.output[-4000:]}"
            return (await self.get("/readyz"))[0] == 200

        await until(answer, seconds)

    @property
    def pid(self) -> int:
        """Of the started process."""
        assert self.process, "not started"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def returncode(self) -> int | None:
        """As subprocess gives it: minus the signal that ended it; None while it runs."""
        return self.process.poll() if self.process else None

    @property
    def output(self) -> str:
        """All it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def send(self, number: int) -> None:
        """A signal, for a process that still runs."""
        if self.running:
            os.kill(self.pid, number)

    async def stop(self, seconds: float = 35) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(seconds)

    async def ended(self, seconds: float = 35) -> int:
        """Its exit code, once it has ended by itself."""
        await until(lambda: not self.running, seconds)
        assert self.process
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, also for a frozen one; nothing when it has ended."""
        if self.process:
            self.process.kill()
            self.process.wait()

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, as /metrics spells it."""
        _, body = await self.get("/metrics")
        lines = [line for line in body.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a probe; status 0 where nothing answers."""
        return await http_get(self.metrics_port, path)


async def http_get(port: int, path: str, seconds: float = 5) -> tuple[int, str]:
    """Status and body of a GET on loopback; status 0 where nothing answers within `seconds`."""
    try:
        async with asyncio.timeout(seconds), _connection(port) as (reader, writer):
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: loopback\r\nConnection: close\r\n\r\n".encode()
            )
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split()[1]) if head else 0, body.decode()
    except (OSError, TimeoutError):
        return 0, ""


@asynccontextmanager
async def _connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


def processor(environment: Mapping[str, str], *arguments: str, program: Path | None = None) -> str:
    """What ``processor ARGUMENTS`` prints; AssertionError with its stderr when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
        cwd=program,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout
