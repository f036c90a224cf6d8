"""Services of docker-compose.yml as processes: the very command, environment and health check, on servers that are here.

Addresses and ports are those of this machine, topics and the group those of the test's world, and paths of the container are
folders of the test; everything else is what the file says.
"""

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processor.embedded.journal import free_port
from processor.embedded.processes import guarded
from tests.deploy import compose
from tests.deploy.compose import ROOT
from tests.harness import World
from tests.harness_waiting import until_now

ADDRESSES = {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATABASE_URL"}
PORTS = ("METRICS_PORT", "API_PORT")


@dataclass
class Place:
    """Where services run: the image's environment, a world, and a folder for volumes and logs."""

    image: Path
    world: World
    folder: Path

    def environment(self, service: Any) -> dict[str, str]:
        """What the service gets, with what is elsewhere here."""
        own: Mapping[str, str] = service["environment"]
        here = self.world.environment()
        moved = {n: v for n, v in here.items() if n in own or n not in ADDRESSES}
        ports = {name: str(free_port()) for name in PORTS if name in own}
        return {**own, **moved, **ports, "PATH": f"{self.image}/bin:/usr/bin:/bin", "HOME": "/"}

    def command(self, service: Any) -> list[str]:
        """The program of the image, or what the service runs instead."""
        words = [*service.get("entrypoint", ["processor"]), *service.get("command", ())]
        return [self._path(service, word) for word in words]

    def _path(self, service: Any, word: str) -> str:
        for mount in compose.mounts(service):
            if word.startswith(mount.target + "/"):
                source = ROOT / mount.source if mount.bound else self.folder / mount.source
                return str(source / word.removeprefix(mount.target + "/"))
        return word


@dataclass
class Process:
    """One container's worth."""

    name: str
    service: Any
    place: Place
    number: int = 1
    environment: dict[str, str] = field(init=False)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.environment = self.place.environment(self.service)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """What it is started in: nothing may be written there."""
        return self.place.folder / f"{self.name}-{self.number}"

    @property
    def output(self) -> str:
        """All it has written."""
        return self.folder.with_suffix(".log").read_text(errors="replace")

    @property
    def left_behind(self) -> list[str]:
        """What it wrote to the folder it ran in, which in a container cannot be written to."""
        return [path.name for path in self.folder.iterdir()]

    def ends(self, seconds: float = 50) -> str:
        """Runs it to its end, which must be a good one; its stdout."""
        done = self._run(self.place.command(self.service), seconds)
        assert done.returncode == 0, f"{self.name} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Returns at once."""
        command = self.place.command(self.service)
        program = shutil.which(command[0], path=self.environment["PATH"])
        assert program, f"the image has no {command[0]}"
        with self.folder.with_suffix(".log").open("wb") as output:
            self._process = subprocess.Popen(
                guarded([program, *command[1:]], signal.SIGKILL, None),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
            )

    def healthy(self, seconds: float = 40) -> None:
        """Waits until its own health check is content."""
        check: Sequence[str] = self.service["healthcheck"]["test"][1:]

        def content() -> bool:
            assert self._process
            code = self._process.poll()
            assert code is None, f"{self.name} ended with {code}:\n{self.output[-3000:]}"
            return self._run(check, 20).returncode == 0

        until_now(content, seconds)

    def stop(self) -> int:
        """SIGTERM; the exit code, which must come before the engine would kill it."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(compose.seconds(self.service["stop_grace_period"]))

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _run(self, command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self.environment,
            cwd=self.folder,
        )
