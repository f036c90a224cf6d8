"""The embedded stack: one directory, the same URLs and data each time, and no process left behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from processor.embedded import Stack
from processor.embedded.containers import require_engine
from processor.embedded.processes import find
from processor.embedded.stack import VARIABLES
from processor.failures import StartRefused
from tests.harness import Message, execute, produce, read_topic, run, until_now

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

HEAP = "256m"  # beside the session's own stack
ROOT = Path(__file__).parents[2]
OWNER = """
import os, sys, pathlib
from processor.embedded import Stack
with Stack(pathlib.Path(sys.argv[1]), {}, heap="256m") as stack:
    print(os.geteuid(), *sum(stack.pids.values(), []), flush=True)
    sys.stdin.readline()
"""
"""A process that owns a stack until its stdin ends; it says who it is and what it runs."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory."""
    return tmp_path / "stack"


@pytest.fixture
def own(folder: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Starts a process with a stack on the directory; gives it and the pids of its servers."""
    owners: list[subprocess.Popen[str]] = []

    def start(*prefix: str) -> tuple[subprocess.Popen[str], list[int]]:
        command = [*prefix, sys.executable, "-c", OWNER, str(folder)]
        owner = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        owners.append(owner)
        assert owner.stdout
        return owner, [int(word) for word in owner.stdout.readline().split()]

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _nothing_lives(pids: list[int]) -> bool:
    return not any(map(_lives, pids))


def _all(stack: Stack) -> list[int]:
    return [pid for pids in stack.pids.values() for pid in pids]


async def test_a_second_stack_on_the_directory_has_the_urls_and_the_data_of_the_first(
    folder: Path,
) -> None:
    with Stack(folder, {}, heap=HEAP) as stack:
        urls = stack.environment()
        execute(stack.postgres, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        create_topic(stack.kafka, "kept")
        await produce(stack.kafka, "kept", [Message(b"7")])
    with Stack(folder, {}, heap=HEAP) as stack:
        assert stack.environment() == urls
        assert run(_fetch(stack.postgres, "SELECT n FROM kept")) == 7
        assert [record.value for record in await read_topic(stack.kafka, "kept")] == [b"7"]


async def _fetch(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def create_topic(kafka: str, name: str) -> None:
    """A topic with one partition."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, 1, 1)])
        finally:
            await admin.close()

    run(create())


def test_the_servers_keep_what_they_promise(stack: Stack) -> None:
    if not all(stack.pids.values()):
        pytest.fail("these tests need the embedded stack: unset the URLs and STACK")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert run(_fetch(stack.postgres, f"SHOW {setting}")) == "on"
    with redis.Redis.from_url(stack.redis, decode_responses=True) as connection:
        assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_everything_listens_on_loopback_alone(stack: Stack) -> None:
    mine, heard = set(_all(stack)), psutil.net_connections("inet")
    listening = [c for c in heard if c.pid in mine and c.status == psutil.CONN_LISTEN]
    addresses = {c.laddr.ip.removeprefix("::ffff:") for c in listening if c.laddr}
    assert addresses == {"127.0.0.1"}


def test_without_the_password_nobody_gets_in(stack: Stack) -> None:
    async def stranger() -> None:
        await asyncpg.connect(stack.postgres.replace("postgres:", "postgres:no", 1))

    with pytest.raises(asyncpg.InvalidPasswordError):
        run(stranger())
    anonymous = redis.Redis.from_url("redis://" + stack.redis.split("@")[1])
    with anonymous, pytest.raises(redis.AuthenticationError):
        anonymous.ping()


def test_a_folder_may_have_a_space_in_its_name(tmp_path: Path) -> None:
    """And whatever else a file system takes, quotes included."""
    with Stack(tmp_path / """my 'own "stack""", {}, heap=HEAP) as stack:
        assert all(stack.pids.values())


def test_stop_leaves_no_process(folder: Path) -> None:
    stack = Stack(folder, {}, heap=HEAP)
    stack.start()
    pids = _all(stack)
    stack.stop()
    assert len(pids) > 3
    assert _nothing_lives(pids)


def test_a_frozen_server_is_stopped_like_any_other(folder: Path) -> None:
    with Stack(folder, {}, heap=HEAP) as stack:
        pids = _all(stack)
        for name in stack.pids:
            stack.kill(name, signal.SIGSTOP)
        assert all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids)
    assert _nothing_lives(pids)


@pytest.mark.parametrize("name", ["kafka", "redis", "postgres"])
def test_a_server_that_was_killed_or_restarted_is_back_under_its_url(
    folder: Path, name: str
) -> None:
    others = {variable: "somebody.else:1" for n, variable in VARIABLES.items() if n != name}
    with Stack(folder, others, heap=HEAP) as stack:
        urls, before = stack.environment(), stack.pids[name]
        stack.kill(name)
        assert _nothing_lives(before)
        stack.start_one(name)
        stack.restart(name)
        assert stack.environment() == urls
        assert not set(stack.pids[name]) & set(before)


def test_the_servers_of_a_killed_owner_end_and_the_next_owner_finds_the_same_urls(
    folder: Path, own: Callable[..., tuple[subprocess.Popen[str], list[int]]]
) -> None:
    owner, (_, *pids) = own()
    owner.kill()
    with Stack(folder, {}, heap=HEAP) as stack:
        assert _nothing_lives(pids)
        assert set(stack.environment()) == {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATABASE_URL"}


def test_the_servers_of_a_killed_owner_end_by_themselves(
    own: Callable[..., tuple[subprocess.Popen[str], list[int]]],
) -> None:
    if not shutil.which("setpriv"):
        pytest.fail("setpriv is missing: install util-linux")
    owner, (_, *pids) = own()
    owner.kill()
    until_now(lambda: _nothing_lives(pids), 10)


def test_leftovers_are_ended_by_pid_and_start_so_another_process_with_that_pid_lives() -> None:
    me = psutil.Process()
    assert find(me.pid, me.create_time()) == me
    assert find(me.pid, me.create_time() - 60) is None


def test_a_directory_has_one_owner(
    folder: Path, own: Callable[..., tuple[subprocess.Popen[str], list[int]]]
) -> None:
    _, (_, *pids) = own()
    with pytest.raises(StartRefused, match="another stack runs in"):
        Stack(folder, {}).start()
    assert all(map(_lives, pids))


def test_it_runs_without_root_too(
    folder: Path, own: Callable[..., tuple[subprocess.Popen[str], list[int]]]
) -> None:
    folder.mkdir()
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    folder.chmod(0o777)
    owner, (user, *pids) = own(*_as_nobody())
    assert user != 0
    assert {psutil.Process(pid).uids().real for pid in pids} == {user}
    owner.communicate("\n", timeout=20)
    assert owner.returncode == 0
    assert _nothing_lives(pids)


def _as_nobody() -> list[str]:
    """Root becomes nobody, who may read, never write, what root keeps to itself, as its Python."""
    if os.geteuid() != 0:
        return []
    power = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    step = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    works = subprocess.run([*step, sys.executable, "-c", ""], check=False, capture_output=True)
    return step if works.returncode == 0 else [*step, *power]


def test_explicit_urls_win_and_start_nothing(folder: Path) -> None:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.test:9092",
        "REDIS_URL": "redis://redis.test:6379/0",
        "DATABASE_URL": "postgresql://postgres.test/db",
    }
    with Stack(folder, given) as stack:
        assert stack.environment() == given
        assert _all(stack) == []
    assert not folder.exists()


def test_what_the_environment_names_is_not_started_and_the_rest_is(folder: Path) -> None:
    given = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.test:9092", "REDIS_URL": ""}
    with Stack(folder, given) as stack:
        assert stack.kafka == "kafka.test:9092"
        assert [name for name, pids in stack.pids.items() if pids] == ["redis", "postgres"]
        with pytest.raises(StartRefused, match="not a server of this stack"):
            stack.kill("kafka")


def test_a_server_that_does_not_come_up_is_named_with_the_end_of_its_log(folder: Path) -> None:
    given = {"KAFKA_BOOTSTRAP_SERVERS": "kafka.test:9092", "REDIS_URL": "redis://redis.test"}
    with Stack(folder, given):
        pass
    (folder / "postgres" / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(StartRefused, match=r"(?s)postgres does not come up.*not compatible"):
        Stack(folder, given).start()


def test_an_unknown_kind_of_stack_is_refused(folder: Path) -> None:
    with pytest.raises(StartRefused, match="STACK=docker: it is"):
        Stack(folder, {"STACK": "docker"}).start()


def test_containers_without_an_engine_are_refused(folder: Path) -> None:
    nowhere = "unix:///nowhere/docker.sock"
    code = "import sys, pathlib; from processor.embedded import Stack; Stack(pathlib.Path(sys.argv[1])).start()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**_without_urls(), "STACK": "containers", "DOCKER_HOST": nowhere},
    )
    assert "no Docker engine answers" in done.stderr.splitlines()[-1]


def _without_urls() -> dict[str, str]:
    urls = {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATABASE_URL"}
    return {name: value for name, value in os.environ.items() if name not in urls}


def _engine_answers() -> bool:
    try:
        require_engine()
    except StartRefused:
        return False
    return True


# docker leaves its socket open where nobody answers
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_containers_are_the_same_three_servers(folder: Path) -> None:
    if not _engine_answers():
        pytest.skip("no Docker engine answers")
    with Stack(folder, {"STACK": "containers"}) as stack:
        create_topic(stack.kafka, "kept")
        await produce(stack.kafka, "kept", [Message(b"7")])
        assert [record.value for record in await read_topic(stack.kafka, "kept")] == [b"7"]
        assert "PostgreSQL 18" in str(run(_fetch(stack.postgres, "SELECT version()")))
        with redis.Redis.from_url(stack.redis) as connection:
            assert connection.ping()
        for name in ("kafka", "redis", "postgres"):
            stack.kill(name)
            stack.start_one(name)
