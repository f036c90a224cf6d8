"""What a data directory remembers: its ports and password, and the processes that run on it.

One owner at a time: a lock that the kernel gives back when the owner dies.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from processor.embedded.processes import wait
from processor.failures import StartRefused

_PORTS = range(15_000, 32_000)  # below the ports that outgoing connections take, see `free_port`
_OWNER_GONE_WITHIN_S = 2.0


def free_port() -> int:
    """A loopback port nobody listens on.

    Never an ephemeral one: a client that keeps reconnecting to a stopped server can be given that
    very port as its own, connect to itself, and keep the server out.
    """
    while True:
        port = secrets.choice(_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Journal:
    """The file ``stack.json`` of a data directory; whatever may be needed again is on disk when the call returns."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stack.json"
        self._mutex = threading.Lock()
        self._lock: TextIO | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Any] = {
            "ports": {},
            "password": secrets.token_hex(16),
            "running": {},
        }
        if self._path.exists():
            self._known = json.loads(self._path.read_text())

    def own(self) -> None:
        """Raises `StartRefused` while another process owns the directory."""
        self._lock = self._path.with_suffix(".lock").open("a")
        # An owner that was killed a moment ago may still be on its way out.
        if not wait(self._locked, _OWNER_GONE_WITHIN_S):
            self.release()
            folder = self._path.parent
            raise StartRefused(f"another stack runs in {folder}: end it, or use another directory")

    def _locked(self) -> bool:
        if self._lock is None:
            return False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Lets another process own the directory."""
        if self._lock:
            self._lock.close()
            self._lock = None

    @property
    def password(self) -> str:
        """Of every server here that knows passwords: other users of the machine reach its loopback too."""
        return str(self._known["password"])

    def port(self, name: str) -> int:
        """The port remembered for `name`; another one where somebody else has taken it since."""
        with self._mutex:
            ports = self._known["ports"]
            if name not in ports or not is_free(ports[name]):
                ports[name] = free_port()
                self._save()
            return int(ports[name])

    def running(self) -> dict[str, tuple[int, float]]:
        """Pid and start (Unix seconds) of each server that was started and not stopped."""
        return {name: (int(pid), float(at)) for name, (pid, at) in self._known["running"].items()}

    def started(self, name: str, pid: int, at: float) -> None:
        """Remembers a process, so that the next owner can end it."""
        with self._mutex:
            self._known["running"][name] = [pid, at]
            self._save()

    def stopped(self, name: str) -> None:
        """Forgets it; on a full disk the file still names it, and the next owner finds that it is gone."""
        with self._mutex, suppress(OSError):
            self._known["running"].pop(name, None)
            self._save()

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._known, file)
        new.replace(self._path)
