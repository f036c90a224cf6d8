"""Passwords and tokens are in nothing that a process says: not in logs, errors, tracebacks, probes, metrics, descriptions or the audit log.

Each secret has a core that survives being quoted in a URL or in JSON; as base64 it is looked for as well.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import pytest
import redis

from processor.doctor import told
from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io.kafka import Cluster
from processor.io.postgres import Postgres
from processor.io.redis import Server
from processor.settings import Settings
from tests import harness
from tests.harness import World, until
from tests.security.certificates import Certificates
from tests.security.tls_kafka import tls_kafka

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]
StartWorker = Callable[..., harness.Worker]

CORES = {"kafka": "Kq7431ztKw8852mb", "redis": "Rw8542yuRd1964hs", "postgres": "Pe9653xiPy2076gv"}
SECRETS = {name: f"{core}:/@ &={core}" for name, core in CORES.items()}
USER = "secretive"
NOWHERE = "127.0.0.1:1"
RUN = 3
"""Commands at once."""

COMMANDS: Sequence[tuple[str, ...]] = (
    ("worker",),
    ("api",),
    ("engagement",),
    ("doctor",),
    ("migrate",),
    ("replay", "--list"),
    ("purge", "--older-than", "400d"),
    ("tokens", "list"),
)
SUCCEED = (("doctor",), ("migrate",), ("tokens", "list"), ("replay", "--list"))


def forms(core: str) -> Iterator[str]:
    """As it is, and as base64 wherever it begins in what is encoded."""
    yield core
    yield core.lower()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + core.encode()).decode()
        yield encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4]


def assert_tells_nothing(text: str, where: object, *more: str) -> None:
    """None of the secrets, nor of `more`, is in the text in any form."""
    for core in (*CORES.values(), *more):
        for form in forms(core):
            assert form not in text, (where, form, text[-3000:])


def with_login(url: str, password: str) -> str:
    """The same server, as this user."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{USER}:{quote(password, safe='')}@{place}"))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[str]:
    """A Kafka that knows the user by the secret."""
    users = {"broker": "broker-secret", USER: SECRETS["kafka"]}
    with tls_kafka(tmp_path_factory.mktemp("kafka"), certificates.server, users) as url:
        yield url


@pytest.fixture
def environment(
    world: World, stack: Stack, kafka: str, certificates: Certificates
) -> Iterator[dict[str, str]]:
    """Settings with a secret for each server, which lets us in with it."""
    harness.execute(
        stack.postgres, f"CREATE ROLE {USER} SUPERUSER LOGIN PASSWORD '{SECRETS['postgres']}'"
    )
    with redis.Redis.from_url(world.redis) as server:
        server.acl_setuser(
            USER, enabled=True, passwords=f"+{SECRETS['redis']}", keys="*", commands=["+@all"]
        )
        yield {
            **world.environment(),
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": SECRETS["kafka"],
            "KAFKA_SSL_CAFILE": str(certificates.authority),
            "KAFKA_SSL_CERTFILE": str(certificates.server),
            "REDIS_URL": with_login(world.redis, SECRETS["redis"]),
            "DATABASE_URL": with_login(world.postgres, SECRETS["postgres"]),
        }
        server.acl_deluser(USER)
    harness.execute(stack.postgres, f"DROP ROLE {USER}")


def said(environment: Mapping[str, str], command: Sequence[str], codes: set[int]) -> str:
    """All that a command says, which ends with one of these codes."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    text = done.stdout + done.stderr
    assert done.returncode in codes, (command, text)
    return text


async def test_services_that_run_and_that_lose_their_servers_tell_no_secret(
    environment: dict[str, str], start_worker: StartWorker, stack: Stack
) -> None:
    """From their start over passwords that are changed under them to a traceback; what they serve neither."""
    harness.processor(environment, "topics", "create", "--partitions", "1")
    token = _token(environment)
    port = harness.free_port()
    worker, engagement, api = (
        start_worker({**environment, "API_PORT": str(port), "LOG_FORMAT": log_format}, name)
        for name, log_format in (("worker", "console"), ("engagement", "json"), ("api", "json"))
    )
    await worker.ready(60)
    await engagement.ready(60)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        await until(lambda: _answers(client, "/readyz", 200), 30)
        served = [
            await _text(client, path) for path in ("/openapi.json", "/docs", "/audit", "/rules")
        ]
        _lock_out(stack)
        await until(lambda: _answers(client, "/readyz", 503), 30)
        await until(lambda: "dependency_away" in worker.output, 30)
        served += [await _text(client, path) for path in ("/events", "/readyz", "/metrics")]
        served += [(await worker.get(path))[1] for path in ("/readyz", "/metrics")]
        _let_in(stack)
        await until(lambda: _answers(client, "/readyz", 200), 30)
    harness.execute(
        harness.database_url(stack.postgres, _database(environment)), "DROP TABLE events CASCADE"
    )
    await _send(environment)
    assert await worker.ended(60) == 1
    assert "Traceback" in worker.output
    for one in (engagement, api):
        await one.stop()
    for text in (*served, worker.output, engagement.output, api.output):
        assert_tells_nothing(text, "a service", token.split("_", 2)[2][:20])


def _token(environment: Mapping[str, str]) -> str:
    asked = ("tokens", "create", "--org-unit", "acme", "--name", "t")
    return harness.processor(environment, *asked).split()[-1]


async def _answers(client: httpx.AsyncClient, path: str, status: int) -> bool:
    try:
        return (await client.get(path)).status_code == status
    except httpx.TransportError:
        return False


async def _text(client: httpx.AsyncClient, path: str) -> str:
    return f"{(answer := await client.get(path)).headers}{answer.text}"


def _database(environment: Mapping[str, str]) -> str:
    return urlsplit(environment["DATABASE_URL"]).path[1:]


def _lock_out(stack: Stack) -> None:
    """Other passwords from now on, also for who is in already."""
    harness.execute(
        stack.postgres,
        f"ALTER ROLE {USER} PASSWORD 'another'",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'",
    )
    with redis.Redis.from_url(stack.redis) as server:
        server.execute_command("ACL", "SETUSER", USER, "resetpass", ">another")
        server.execute_command("CLIENT", "KILL", "USER", USER)


def _let_in(stack: Stack) -> None:
    """As before."""
    harness.execute(stack.postgres, f"ALTER ROLE {USER} PASSWORD '{SECRETS['postgres']}'")
    with redis.Redis.from_url(stack.redis) as server:
        server.execute_command("ACL", "SETUSER", USER, f">{SECRETS['redis']}")


async def _send(environment: Mapping[str, str]) -> None:
    """An event that cannot be stored any more."""
    producer = Cluster(Settings.model_validate(environment)).producer(16_384, None)
    await producer.start()
    event = b'{"org_unit": "a", "lead_id": "b", "event_type": "c"}'
    await producer.send_and_wait(environment["RAW_TOPIC"], event)
    await producer.stop()


def test_commands_tell_no_secret_whether_or_not_they_can_do_their_work(
    environment: dict[str, str],
) -> None:
    """With everything there, where nothing answers, and with passwords that are wrong: nobody learns what was tried."""
    nowhere = {
        "KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
        "REDIS_URL": _elsewhere(environment["REDIS_URL"]),
        "DATABASE_URL": _elsewhere(environment["DATABASE_URL"]),
    }
    wrong = {
        "KAFKA_SASL_PASSWORD": f"{SECRETS['kafka']}x",
        "REDIS_URL": with_login(environment["REDIS_URL"], f"{SECRETS['redis']}x"),
        "DATABASE_URL": with_login(environment["DATABASE_URL"], f"{SECRETS['postgres']}x"),
    }
    harness.processor(environment, "topics", "create", "--partitions", "1")
    one_by_one = [{name: value} for name, value in wrong.items()]
    asked: list[tuple[tuple[str, ...], Mapping[str, str], set[int]]] = [
        *((command, {}, {0}) for command in SUCCEED),
        *((command, nowhere, {1, 2}) for command in (("worker",), ("doctor",))),
        *((command, wrong, {1, 2}) for command in COMMANDS),
        *((COMMANDS[0], one, {2}) for one in one_by_one),
    ]

    def tried(number: int) -> None:
        command, changed, codes = asked[number]
        formats = {"LOG_FORMAT": "console" if number % 2 else "json"}
        text = said({**environment, **changed, **formats}, command, codes)
        assert "Traceback" not in text
        assert_tells_nothing(text, command)

    with ThreadPoolExecutor(RUN) as threads:
        list(threads.map(tried, range(len(asked))))


def _elsewhere(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{NOWHERE}"))


@pytest.mark.parametrize("scheme", ["redis", "rediss", "postgresql", "http"])
@pytest.mark.parametrize(
    "shape",
    [
        "{}",
        "SCHEME:{}",
        "SCHEME://u:{}@127.0.0.1:1/0",
        "SCHEME://u:{}@127.0.0.1:x/0",
        "SCHEME://u:{}@[::1/0",
        "SCHEME://u:1/{}@127.0.0.1:1/0",
        "SCHEME://u:1?{}@127.0.0.1:1/0",
        "SCHEME://u:1?a={}@127.0.0.1:1/0",
        "SCHEME://u:1#{}@127.0.0.1:1/0",
        "SCHEME://u:1%{}@127.0.0.1:1/0",
        "SCHEME://{}@127.0.0.1:1/0",
        "SCHEME://u:p@127.0.0.1:1/0?password={}&x={}",
        "SCHEME://u:{}@127.0.0.1:1,127.0.0.1:x/0",
    ],
)
async def test_a_url_that_is_none_tells_nothing_of_what_was_meant_to_be_secret(
    scheme: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the password got into the wrong place of it, and whoever looks at it first."""
    of_postgres = scheme == "postgresql"
    core = CORES["postgres" if of_postgres else "redis"]
    variable = "DATABASE_URL" if of_postgres else "REDIS_URL"
    monkeypatch.setenv(variable, shape.replace("SCHEME", scheme).replace("{}", core))
    with pytest.raises(StartRefused, match=variable) as refused:
        await _opened(of_postgres, shape)
    assert_tells_nothing(str(refused.value), shape)


async def _opened(of_postgres: bool, shape: str) -> None:
    settings = Settings.load()
    assert_tells_nothing(told(settings), shape)
    if of_postgres:
        await Postgres.connect(settings.database_url.get_secret_value())
    else:
        await Server.connect(settings.redis_url.get_secret_value())
