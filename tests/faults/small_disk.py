"""A small disk, which can be full: a file system in memory, of a server's data alone."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.matrix import NotRunError

_TRIES = 5


@dataclass(frozen=True)
class SmallDisk:
    """Mounted at `path`."""

    path: Path

    def fill(self) -> None:
        """Nothing more can be written, also by whoever writes meanwhile and so takes a part of what was free."""
        with self._ballast.open("wb") as ballast:
            for _ in range(_TRIES):
                there = os.statvfs(self.path)
                with suppress(OSError):
                    taken = os.fstat(ballast.fileno()).st_size
                    os.posix_fallocate(ballast.fileno(), taken, there.f_bavail * there.f_frsize)

    def free(self) -> None:
        """What `fill` took is there again."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


@asynccontextmanager
async def small_disk(path: Path, megabytes: int) -> AsyncIterator[SmallDisk]:
    """For as long as the block runs; raises `NotRunError` where it cannot be mounted."""
    await _run("mkdir", str(path))
    await _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(path))
    try:
        yield SmallDisk(path)
    finally:
        await _run("umount", str(path))


async def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise NotRunError(f"a small disk needs {command[0]}: install util-linux")
    done = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise NotRunError(f"a small disk needs root and CAP_SYS_ADMIN, to mount a tmpfs: {said}")
