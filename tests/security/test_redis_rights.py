"""The Redis user of the runbook: without any one of its commands something does not work, and with them all nothing else is open."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from processor.failures import Failure
from processor.io import redis_cluster
from processor.io.checkup_redis import redis_server
from processor.io.redis import Server
from processor.settings import Settings
from tests.harness_secured import command_of, user_of

pytestmark = pytest.mark.e2e
LINE = command_of("ACL SETUSER worker").replace("SETUSER worker", "SETUSER limited")
GRANTED = re.findall(r" \+(\S+)", LINE)
OF_A_CLUSTER = ("cluster|slots", "asking")
OF_THE_CLIENT = ("select", "evalsha", "eval", "info", "time", *OF_A_CLUSTER)
SCRIPTS = Path(redis_cluster.__file__).parent.glob("windows_*.lua")
FORBIDDEN = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET *", "CONFIG SET maxmemory 1", "SCRIPT FLUSH", "SCRIPT LOAD x", "ACL LIST",
    "ACL WHOAMI", "CLIENT LIST", "DEBUG SLEEP 0", "MONITOR", "SUBSCRIBE a", "PUBLISH a b", "REPLICAOF no one", "SHUTDOWN NOSAVE",
    "CLUSTER RESET", "CLUSTER FAILOVER", "FUNCTION LIST", "MODULE LIST", "SWAPDB 0 1", "GET w1:a", "SET w1:a b", "RENAME w1:a w1:b",
    "MIGRATE h 1 w1:a 0 1", "SAVE", "DUMP w1:a", "HGETALL w1:a", "OBJECT ENCODING w1:a", "ZADD other 1 a", "DEL other", "ZCARD w2:a",
)  # fmt: skip


@pytest.fixture
def admin(redis_url: str) -> Iterator[redis.Redis]:
    """Makes users, and takes them away again."""
    with redis.Redis.from_url(redis_url) as server:
        yield server
        server.acl_deluser("limited")


async def works(url: str) -> bool:
    """Whether a worker could start and the doctor finds no fault."""
    try:
        server = await Server.connect(url)
        try:
            await server.now()
        finally:
            await server.close()
        settings = Settings.model_validate({"REDIS_URL": url})
        findings = await redis_server(settings)
    except Failure:
        return False
    return not [one for one in findings if one.level == "fault"]


def test_what_is_granted_is_what_is_called() -> None:
    """By the scripts of windows and by the client; no more and no less."""
    called = re.compile(r"redis\.p?call\('(\w+)'")
    of_scripts = {name.lower() for path in SCRIPTS for name in called.findall(path.read_text())}
    assert sorted(GRANTED) == sorted(of_scripts | {*OF_THE_CLIENT})
    of_cluster = Path(redis_cluster.__file__).read_text()
    assert all(f'"{name.replace("|", " ").upper()}"' in of_cluster for name in OF_A_CLUSTER)


async def test_without_any_one_command_something_does_not_work(
    redis_url: str, admin: redis.Redis
) -> None:
    """Which the doctor says, or the start of a worker; those of a cluster are for a cluster."""
    url = user_of(redis_url, "limited")
    admin.execute_command(*LINE.split())
    assert await works(url)
    for command in GRANTED:
        if command in OF_A_CLUSTER:
            continue
        admin.execute_command("ACL", "SETUSER", "limited", f"-{command}")
        assert not await works(url), command
        admin.execute_command("ACL", "SETUSER", "limited", f"+{command}")
    assert await works(url)


def test_nothing_else_is_open(redis_url: str, admin: redis.Redis) -> None:
    """No administration, no other commands on its keys, no other keys, by script neither."""
    admin.execute_command(*LINE.split())
    with redis.Redis.from_url(user_of(redis_url, "limited")) as limited:
        for command in FORBIDDEN:
            words = command.split()
            for asked in (words, ["EVAL", f"return redis.call({_quoted(words)})", "0"]):
                with pytest.raises((redis.exceptions.NoPermissionError, redis.ResponseError)) as no:
                    limited.execute_command(*asked)
                assert re.search("(?i)no permissions|NOPERM|ACL failure|not allowed", str(no.value)), (
                    asked, str(no.value),
                )  # fmt: skip


def _quoted(words: list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def test_a_wrong_password_or_user_is_no_way_in(redis_url: str, admin: redis.Redis) -> None:
    """Nor is none at all."""
    admin.execute_command(*LINE.split())
    good = user_of(redis_url, "limited")
    for url in (
        good.replace("PASSWORD", "wrong"),
        good.replace("limited", "nobody"),
        good.replace("limited:PASSWORD@", ""),
    ):
        with (
            redis.Redis.from_url(url) as server,
            pytest.raises((redis.AuthenticationError, redis.exceptions.NoPermissionError)),
        ):
            server.info()
