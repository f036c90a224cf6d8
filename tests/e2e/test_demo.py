"""The demo as somebody types it: it runs by itself, can be ended at any moment, and its check can fail."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from processor.demo import stage
from processor.demo.checking import check, settled
from processor.demo.ledger import Sent
from processor.demo.producing import produce, sending
from processor.demo.traffic import traffic
from processor.embedded import Stack
from processor.embedded.processes import alive
from processor.io.kafka import Cluster, connected
from tests import harness

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
StartDemo = Callable[..., "Demo"]
ENDS_WITHIN_S = 5.0
STARTS_WITHIN_S = 90.0
SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATABASE_URL", "STACK")


@dataclass
class Demo:
    """A demo process whose files are all in `folder`."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def said(self) -> str:
        """All it has written so far."""
        return (self.folder / "said").read_text(errors="replace")

    def says(self, pattern: str, seconds: float = STARTS_WITHIN_S) -> re.Match[str]:
        """The first match in what it writes; AssertionError where it ends or takes too long."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said)
            assert match or self.process.poll() is None, self.said
            return match

        match = harness.until_now(found, seconds)
        assert match
        return match

    def ended(self, seconds: float) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def processes(self) -> list[psutil.Process]:
        """All below it, whatever their session."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def left(self, before: Sequence[psutil.Process]) -> list[str]:
        """What lives on, or lies about, of a demo that has ended."""
        names = [str(process) for process in before if alive(process)]
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            names += [str(words)] if any(str(self.folder) in word for word in words) else []
        return [*names, *(path.name for path in self.folder.glob("processor-demo-*"))]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts ``processor demo``; what still runs at the end is killed."""
    started: list[Demo] = []

    def start(
        *arguments: str, given: Mapping[str, str] | None = None, output: int | None = None
    ) -> Demo:
        environment = {k: v for k, v in os.environ.items() if k not in SERVERS}
        environment |= {"TMPDIR": str(tmp_path), **(given or {})}
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "processor", "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output or said,
                stderr=said,
                env=environment,
                start_new_session=True,
            )
        started.append(Demo(process, tmp_path))
        return started[-1]

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def test_a_demo_without_a_terminal_ends_by_itself_with_a_summary(start_demo: StartDemo) -> None:
    """It starts its own servers, and exits with 0 because everything agrees; nothing is left."""
    demo = start_demo("--seconds", "8")
    demo.says(r"playing: \d+ events/s, lag \d+, latency p50 \d+ ms")
    family = demo.processes()
    curls = re.findall(r"^curl .*$", demo.said, re.MULTILINE)
    assert len(curls) == 3
    assert all(pasted(curl).status_code == 200 for curl in curls)
    assert len(family) > 3
    assert demo.ended(120) == 0, demo.said
    for expected in ("events sent", "duplicates", "dead letters", "merges", "every verdict agrees"):
        assert expected in demo.said
    sent = int(demo.says(r"events sent +│ +([\d,]+)")[1].replace(",", ""))
    stored = int(demo.says(r"stored +│ +([\d,]+)")[1].replace(",", ""))
    assert sent > stored > 500
    assert demo.left(family) == []


def pasted(curl: str) -> httpx.Response:
    """The answer to a command line of curl, which a machine need not have."""
    program, silent, header, told, url = shlex.split(curl)
    assert (program, silent, header) == ("curl", "-s", "-H")
    name, _, value = told.partition(": ")
    return httpx.get(url, headers={name: value}, timeout=30, trust_env=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_an_endless_demo_within_5_s_and_leaves_nothing(
    start_demo: StartDemo, number: signal.Signals
) -> None:
    """It is its normal end: exit code 0 and one line, nothing checked."""
    demo = start_demo()
    demo.says("playing: .*organic [1-9]")
    family = demo.processes()
    began = time.monotonic()
    demo.process.send_signal(number)
    assert demo.ended(30) == 0, demo.said
    assert time.monotonic() - began < ENDS_WITHIN_S
    assert "stopped while playing" in demo.said
    assert demo.left(family) == []


def test_ctrl_c_during_the_start_leaves_nothing_either(start_demo: StartDemo) -> None:
    """A demo that was to be checked and was not has 128 + the signal."""
    demo = start_demo("--seconds", "5")
    demo.says("Valkey: ")
    family = demo.processes()
    began = time.monotonic()
    demo.process.send_signal(signal.SIGINT)
    assert demo.ended(30) == 130, demo.said
    assert time.monotonic() - began < ENDS_WITHIN_S
    assert demo.left(family) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_anything_is_shown_leaves_nothing(
    start_demo: StartDemo, number: signal.Signals
) -> None:
    """Whether it comes before the run hears signals or after, one that was to be checked was not."""
    demo = start_demo("--seconds", "60")
    demo.says("starting the servers")
    demo.process.send_signal(number)
    assert demo.ended(30) == 128 + number, demo.said
    assert demo.left([]) == []


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--seconds", "60"), 141)])
def test_output_that_nobody_reads_is_the_end_of_a_demo(
    start_demo: StartDemo,
    stack: Stack,
    redis_url: str,
    arguments: Sequence[str],
    code: int,
) -> None:
    """As for any program in a pipe: no difference was found, and nothing is kept or said."""
    reader, writer = os.pipe()
    demo = start_demo(*arguments, given=_environment(stack, redis_url), output=writer)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert "starting the servers" in pipe.readline()
    assert demo.ended(60) == code, demo.said
    assert demo.said == ""
    assert demo.left([]) == []


def test_a_dead_server_ends_the_demo_with_one_line(start_demo: StartDemo) -> None:
    """It names the server and its log, which is kept."""
    demo = start_demo("--seconds", "60")
    demo.says("playing: .*organic [1-9]")
    family = demo.processes()
    kafka = next(p for p in family if "kafka.Kafka" in p.cmdline())
    kafka.kill()
    assert demo.ended(30) == 2, demo.said
    (line,) = re.findall("^processor: .*", demo.said, re.MULTILINE)
    log = re.fullmatch("processor: kafka ended unexpectedly; see (.*)", line)
    assert log, line
    assert Path(log[1]).exists()
    assert [process for process in family if alive(process)] == []


def _environment(stack: Stack, redis_url: str) -> dict[str, str]:
    return {**stack.environment(), "REDIS_URL": redis_url}


async def _topics(stack: Stack, database: str) -> set[str]:
    world = harness.World(stack.kafka, stack.redis, database, "unused")
    async with connected(Cluster(world.settings())) as admin:
        return {topic for topic in await admin.list_topics() if not topic.startswith("__")}


async def test_on_servers_of_others_a_dead_worker_ends_it_and_nothing_of_it_stays(
    start_demo: StartDemo, stack: Stack, redis_url: str, database: str
) -> None:
    """Explicit URLs win; topics, database and Redis are its own, and go with it."""
    before = await _topics(stack, database)
    demo = start_demo("--seconds", "60", given=_environment(stack, redis_url))
    pid = int(demo.says(r"worker pid (\d+)")[1])
    demo.says("playing: .*organic [1-9]")
    during = await _topics(stack, database) - before
    assert {re.sub(r"demo_[0-9a-f]{8}\.", "", topic) for topic in during} >= {"events.raw"}
    os.kill(pid, signal.SIGKILL)
    assert demo.ended(30) == 2, demo.said
    (line,) = re.findall("^processor: .*", demo.said, re.MULTILINE)
    assert re.fullmatch("processor: the worker ended with exit code -9; its log: .*", line)
    assert await _topics(stack, database) == before


async def test_of_a_database_that_stays_on_a_server_of_others_a_line_tells(
    start_demo: StartDemo, stack: Stack, redis_url: str, database: str
) -> None:
    """Behind everything else, and the demo ends as it would."""
    demo = start_demo(given=_environment(stack, redis_url))
    demo.says("playing: .*organic [1-9]")
    (name,) = {t.partition(".")[0] for t in await _topics(stack, database) if "demo_" in t}
    harness.execute(stack.postgres, f"ALTER DATABASE {name} IS_TEMPLATE true")
    demo.process.send_signal(signal.SIGINT)
    code = demo.ended(30)
    harness.execute(stack.postgres, f"ALTER DATABASE {name} IS_TEMPLATE false")
    harness.drop_database(stack.postgres, name)
    (line,) = re.findall("^processor: .*", demo.said, re.MULTILINE)
    assert line.startswith(f"processor: the database {name} is still on its server")
    assert (code, demo.said.splitlines()[-1]) == (0, line)


def test_a_terminal_gets_a_live_screen_and_is_given_back(
    start_demo: StartDemo, stack: Stack, redis_url: str, tmp_path: Path
) -> None:
    """Drawn as a whole on the alternate screen."""
    reader, terminal = pty.openpty()
    given = {
        **_environment(stack, redis_url),
        "TERM": "xterm-256color",
        "COLUMNS": "80",
        "LINES": "24",
    }
    demo = start_demo(given=given, output=terminal)
    os.close(terminal)
    seen = bytearray()
    expected = (
        "\x1b[?1049h",
        "events/s",
        "p99",
        "verdicts",
        "last suppressed",
        "Crawlers that say",
    )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not all(word.encode() in seen for word in expected):
        assert time.monotonic() < deadline, seen[-3000:].decode(errors="replace")
        seen += os.read(reader, 65_536)
    demo.process.send_signal(signal.SIGINT)
    rest = bytearray()
    while chunk := _read(reader):
        rest += chunk
    os.close(reader)
    assert demo.ended(30) == 0
    assert b"\x1b[?1049l" in rest
    assert b"stopped while playing" in rest


def test_a_closed_terminal_ends_the_demo(
    start_demo: StartDemo, stack: Stack, redis_url: str
) -> None:
    """Whether or not a signal says so."""
    reader, terminal = pty.openpty()
    given = {**_environment(stack, redis_url), "TERM": "xterm-256color"}
    demo = start_demo(given=given, output=terminal)
    os.close(terminal)
    seen = b""
    while b"\x1b[?1049h" not in seen:
        seen += os.read(reader, 65_536)
    os.close(reader)
    assert demo.ended(60) == 0, demo.said
    assert demo.said == ""
    assert demo.left([]) == []


def _read(reader: int) -> bytes:
    try:
        return os.read(reader, 65_536)
    except OSError:  # nobody is at the other side any more
        return b""


TAMPERED: Sequence[tuple[str, str]] = (
    ("DELETE FROM events WHERE id = {}", "an event is not stored"),
    ("UPDATE events SET suppression_reason = 'inorganic' WHERE id = {}", "reason is inorganic"),
    ("UPDATE events SET metadata = '{{}}' WHERE id = {}", "metadata of the row"),
    ("UPDATE events SET lead_id = 'x' WHERE id = {}", "stored for lead x"),
    ("UPDATE events SET received_at = received_at + interval '1 ms' WHERE id = {}", "received_at"),
    ("UPDATE events SET source_offset = 999999 WHERE id = {}", "a row of a message"),
    (
        "DELETE FROM lead_redirects WHERE ctid = (SELECT min(ctid) FROM lead_redirects)",
        "redirected",
    ),
    ("UPDATE events SET rules = 0", "verdicts were not checked"),
)


async def test_a_row_altered_meanwhile_makes_the_demo_exit_with_1(
    start_demo: StartDemo, stack: Stack, redis_url: str, database: str
) -> None:
    """It says what differs."""
    demo = start_demo("--seconds", "6", given=_environment(stack, redis_url))
    demo.says("playing: .*organic [1-9]")
    (name,) = {t.partition(".")[0] for t in await _topics(stack, database) if "demo_" in t}
    harness.execute(
        harness.database_url(stack.postgres, name), "UPDATE events SET metadata = '{\"a\": 1}'"
    )
    assert demo.ended(120) == 1, demo.said
    assert re.search(r"metadata of the row is not what was sent", demo.said)
    assert re.search(r"[\d,]+ differences; the logs are in ", demo.said)


async def test_a_tampered_row_makes_the_check_fail(
    world: harness.World, start_worker: Callable[..., harness.Worker]
) -> None:
    """Everything agrees before, and each change is found."""
    await world.create_topics()
    harness.processor(world.environment(), "filters", "apply", str(stage.FILTERS))
    worker = start_worker(world.environment())
    await worker.ready()
    settings, sent = world.settings(), list[Sent]()
    async with sending(settings, sent.append) as sender:
        await produce(sender, traffic(7, _now, settings.max_future_ms), 5)
    await settled(settings, sent)
    assert await worker.stop() == 0
    verdict = await check(settings, sent)
    assert verdict.differences == []
    assert verdict.account.joined + verdict.account.no_ops > 0
    for number, (statement, expected) in enumerate(TAMPERED):
        nth = f"(SELECT id FROM events WHERE suppression_reason IS NULL AND source_topic = '{world.raw}'"
        nth += f" AND original_lead_id IS NULL ORDER BY id OFFSET {number * 3} LIMIT 1)"
        harness.execute(world.postgres, statement.format(nth))
        found: Any = (await check(settings, sent)).differences
        assert any(expected in difference for difference in found), (expected, found)


def _now() -> int:
    return time.time_ns() // 1_000_000
