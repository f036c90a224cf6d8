"""What processes have used so far."""

import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from processor.embedded.processes import tree

_MAIN_PEAK = re.compile(r"VmHWM:\s+(\d+)")


def cpu(servers: Iterable[int]) -> float:
    """Seconds of servers with all their children, ended ones included."""
    spent = 0.0
    for pid in servers:
        main = psutil.Process(pid)
        ended = main.cpu_times()
        living = [process.cpu_times() for process in tree(main)]
        spent += sum(times.user + times.system for times in living)
        spent += ended.children_user + ended.children_system
    return spent


def peak_mb(pid: int) -> int:
    """The most memory the process had at a time, its children left out; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    found = _MAIN_PEAK.search(status.read_text()) if status.exists() else None
    return int(found[1]) // 1024 if found else 0
