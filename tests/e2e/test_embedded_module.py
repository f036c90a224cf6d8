"""``python -m processor.embedded`` ends when it is told to, at any moment, and whatever ends it, no server is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from processor.embedded.processes import alive
from processor.embedded.stack import VARIABLES
from tests.harness import until_now

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
Start = Callable[..., subprocess.Popen[str]]
ROOT = Path(__file__).parents[2]
ENDS_WITHIN_S = 3.0
"""Less than it takes until a server that does not hear is killed."""


def only(name: str) -> dict[str, str]:
    """The environment where one server alone is to be started."""
    return {variable: "somebody.else:1" for n, variable in VARIABLES.items() if n != name}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the module for one server, behind another command or not; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        name: str, *prefix: str, given: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.Popen[str]:
        environment = {
            k: v for k, v in os.environ.items() if k not in {*VARIABLES.values(), "STACK"}
        }
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "processor.embedded", str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment, **only(name), **given},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def servers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What it has started so far."""
    return psutil.Process(process.pid).children(recursive=True)


def named(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """Those of them that run this program by now."""
    with suppress(psutil.NoSuchProcess):
        return [one for one in servers(process) if one.name() == name]
    return []


def serving(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its servers, once it has said that they serve."""
    assert process.stdout
    lines = [process.stdout.readline() for _ in VARIABLES]
    assert all(line.startswith("export ") for line in lines), lines
    return servers(process)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them lives."""
    return not any(map(alive, processes))


@pytest.mark.parametrize("name", VARIABLES)
def test_the_servers_of_a_killed_one_end_by_themselves(start: Start, name: str) -> None:
    """The kernel tells each of them, and each of them hears it."""
    process = start(name)
    family = serving(process)
    assert family
    process.kill()
    until_now(lambda: gone(family))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_its_normal_end_and_its_servers_end_cleanly(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    """At once, each by its own signal: nothing has to be killed."""
    process = start("redis")
    family = serving(process)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(30) == 0
    assert time.monotonic() - began < ENDS_WITHIN_S
    assert gone(family)
    assert "Valkey is now ready to exit" in (tmp_path / "redis" / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_cuts_it_off(start: Start, number: signal.Signals) -> None:
    """It has served nobody: the exit code is 128 + the signal."""
    process = start("kafka")
    family = until_now(lambda: servers(process))
    began = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert time.monotonic() - began < ENDS_WITHIN_S
    assert gone(family)


def test_a_start_that_is_cut_off_ends_no_process_that_was_there_before(start: Start) -> None:
    """A shell that becomes this program has children of its own."""
    process = start("kafka", "sh", "-c", 'sleep 60 >/dev/null & exec "$@"', "sh")
    other = until_now(lambda: named(process, "sleep"))[0]
    family = until_now(lambda: named(process, "java"))
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    lives = alive(other)
    other.kill()
    assert lives
    assert gone(family)


def test_a_shell_reads_each_url_as_it_is(start: Start) -> None:
    """Whatever it has that means something there; what has nothing of it stands bare."""
    url = "postgresql:///leads?host=/run/a b&user=it's$HOME"
    process = start("redis", given={"DATABASE_URL": url})
    assert process.stdout
    said = [process.stdout.readline() for _ in VARIABLES]
    script = "".join(said) + 'printf %s "$DATABASE_URL"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == url
    assert "export KAFKA_BOOTSTRAP_SERVERS=somebody.else:1\n" in said


def test_one_that_was_started_with_nohup_outlives_its_terminal(start: Start) -> None:
    """Who has SIGHUP ignored means it."""
    process = start("kafka", "nohup")
    until_now(lambda: servers(process))
    process.send_signal(signal.SIGHUP)
    assert serving(process)
    process.terminate()
    assert process.wait(30) == 0
