"""Processes that end with their owner: started, watched, signalled and ended together with all their children.

A child hears of its owner's death from the kernel (Linux), and from the journal on the next start everywhere.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

from processor.failures import StartRefused

try:
    import psutil
except ImportError as error:
    reason = "the embedded servers are not installed: in a checkout run pip install '.[embedded]'"
    raise StartRefused(reason) from error

_POLL_S = 0.02
_STARTED_WITHIN_S = 2.0
_UNPRIVILEGED = "nobody"


def endings() -> list[signal.Signals]:
    """What ends a program at a terminal; not SIGHUP where it is ignored, as nohup has it."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def owner() -> tuple[int, int] | None:
    """User and group for servers that refuse to run as root; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam(_UNPRIVILEGED)
    return account.pw_uid, account.pw_gid


def guarded(
    command: Sequence[str], stop: signal.Signals, account: tuple[int, int] | None
) -> list[str]:
    """The command, as `account`, and with `stop` delivered to it when its owner dies.

    Raises `StartRefused` where root has no ``setpriv`` to step down with.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None and account is None:
        return list(command)
    if setpriv is None:
        raise StartRefused(
            "Postgres does not run as root: run as another user, or install setpriv (util-linux)"
        )
    return [setpriv, "--pdeathsig", stop.name.removeprefix("SIG"), *_as(account), *command]


def _as(account: tuple[int, int] | None) -> list[str]:
    if account is None:
        return []
    # It may go where its root owner may, so packages and data can live below /root; without the
    # securebit access(2) would ignore that, and Postgres asks it.
    power = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    user, group = map(str, account)
    step_down = ["--reuid", user, "--regid", group, "--clear-groups"]
    return [*step_down, *power, "--securebits", "+no_setuid_fixup"]


def run(command: Sequence[str], account: tuple[int, int] | None = None) -> None:
    """Runs a preparing command to its end; raises `StartRefused` with what it said last."""
    done = subprocess.run(
        guarded(command, signal.SIGKILL, account),
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise StartRefused(f"{Path(command[0]).name} failed ({done.returncode}): {said}")


def environment() -> dict[str, str]:
    """What the servers get: a broken LANG of the caller is no reason not to start."""
    return {**os.environ, "LC_ALL": "C"}


class Spawner:
    """Starts processes from one thread that lives as long as this object.

    The kernel takes the death of the starting thread for the death of the parent.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spawner")

    def start(self, command: Sequence[str], log: Path) -> psutil.Popen:
        """A process in a session of its own: Ctrl-C at the terminal reaches its owner only."""
        return self._thread.submit(self._start, command, log).result()

    def _start(self, command: Sequence[str], log: Path) -> psutil.Popen:
        with log.open("ab") as output:
            return psutil.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                cwd=log.parent,
                start_new_session=True,
            )


def children() -> frozenset[psutil.Process]:
    """Those that this process started and that are still there."""
    return frozenset(psutil.Process().children())


def kill_children(spared: Collection[psutil.Process] = ()) -> None:
    """All processes below this one, but for the `spared` children and what is below them."""
    for child in children().difference(spared):
        send(tree(child), signal.SIGKILL)


def cut_off(starting: Thread, seconds: float, spared: Collection[psutil.Process] = ()) -> bool:
    """Ends a start, and with it all children of this process but the `spared`; False when it still goes on after `seconds`."""
    deadline = time.monotonic() + seconds
    while starting.is_alive() and time.monotonic() < deadline:
        kill_children(spared)  # also what prepares a server
        starting.join(_POLL_S)
    return not starting.is_alive()


def find(pid: int, started: float) -> psutil.Process | None:
    """The process `pid`, if it is still the one that started then (Unix seconds)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if abs(process.create_time() - started) < _STARTED_WITHIN_S and alive(process):
            return process
    return None


def alive(process: psutil.Process) -> bool:
    """A zombie is dead."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stopped(process: psutil.Process) -> bool:
    """Frozen, or dead."""
    return not alive(process) or process.status() == psutil.STATUS_STOPPED


def listens(process: psutil.Process, port: int) -> bool:
    """Whether it is this process, and no other, that listens there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        ports = [
            c.laddr.port
            for c in process.net_connections("tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr
        ]
        return port in ports
    return False


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and all below it, as far as they live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Signals those that still live."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def end(process: psutil.Process, stop: signal.Signals, seconds: float) -> None:
    """Asks with `stop`, kills what is left after `seconds`; afterwards none of the tree lives."""
    family = tree(process)
    send(family, signal.SIGCONT)  # a frozen process hears nothing
    send([process], stop)
    if not gone(family, seconds):
        send(family, signal.SIGKILL)
        gone(family, seconds)


def gone(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Waits until none of them lives; False when some still do after `seconds`."""
    family = list(processes)
    return wait(lambda: not any(map(alive, family)), seconds)


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for the condition; False when it does not hold after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
