"""Nothing but TLS: to Kafka with SCRAM, to Redis and to Postgres, all from settings alone; and a Kafka that lets nobody in.

The embedded Redis and Postgres speak no TLS, so a proxy of the tests ends it in front of them.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest

from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io.kafka import Cluster, at_start
from processor.settings import Settings
from tests import harness
from tests.security.certificates import Certificates
from tests.security.tls_kafka import tls_kafka
from tests.security.tls_proxy import Proxy, port_of, through, tls_in_front_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
USER, PASSWORD = "worker", "worker's secret: 100% @home"
MANY = [{"lead_id": "a", "event_type": "page_view", "timestamp": "2025-01-15T10:30:00Z"}] * 3
VELOCITY = {"name": "n", "event_type": "page_view", "threshold": 1, "window_ms": 1000}

StartWorker = Callable[..., harness.Worker]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[str]:
    """The bootstrap server of a Kafka that takes nothing but TLS, a certificate and a password."""
    users = {"broker": "broker-secret", USER: PASSWORD}
    with tls_kafka(tmp_path_factory.mktemp("kafka"), certificates.server, users) as url:
        yield url


@pytest.fixture
def secured(kafka: str, certificates: Certificates) -> dict[str, str]:
    """The settings with which it lets us in."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CAFILE": str(certificates.authority),
        "KAFKA_SSL_CERTFILE": str(certificates.server),
    }


def refusal(environment: Mapping[str, str], *command: str) -> str:
    """The one line with which a command ends."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def everything(
    world: harness.World,
    secured: dict[str, str],
    certificates: Certificates,
    redis_proxy: Proxy,
    postgres_proxy: Proxy,
) -> dict[str, str]:
    """The settings of a processor that speaks nothing but TLS; schema and topics are there."""
    environment = {
        **world.environment(),
        **secured,
        "REDIS_URL": through(world.redis, redis_proxy.port, certificates.authority),
        "DATABASE_URL": through(world.postgres, postgres_proxy.port, certificates.authority),
    }
    assert harness.processor(environment, "migrate") == "schema is up to date\n"
    harness.processor(environment, "topics", "create", "--partitions", "2")
    return environment


async def test_every_service_works_where_all_it_speaks_to_wants_tls(
    everything: dict[str, str],
    redis_proxy: Proxy,
    postgres_proxy: Proxy,
    start_worker: StartWorker,
) -> None:
    """Events by HTTP, verdicts with a window, a score, a dead letter that is replayed, the doctor."""
    asked = ("tokens", "create", "--org-unit", "acme", "--name", "t")
    token = harness.processor(everything, *asked).split()[-1]
    port = harness.free_port()
    started = [start_worker(everything, name) for name in ("worker", "engagement")]
    start_worker({**everything, "API_PORT": str(port)}, "api")
    for one in started:
        await one.ready(60)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        await harness.until(lambda: _serves(client), 30)
        assert (await client.post("/velocity-filters", json=VELOCITY)).status_code == 201
        assert (await client.post("/ingest", json=MANY)).status_code == 202
        await harness.until(lambda: _judged(client), 30)
    await _send(everything, b"no event")
    await harness.until(lambda: _letters(started[0], 1), 30)
    assert _last(everything, "doctor").endswith(" 0 warnings, 0 faults")
    assert _last(everything, "replay", "--yes") == "1 letters replayed, 0 not chosen"
    await harness.until(lambda: _letters(started[0], 2), 30)
    assert [await one.stop() for one in started] == [0, 0]
    assert redis_proxy.encrypted > 1
    assert postgres_proxy.encrypted > 5


async def _judged(client: httpx.AsyncClient) -> bool:
    found = (await client.get("/events?suppression_reason=inorganic")).json()
    return (found["total"], (await client.get("/leads")).json()["total"]) == (2, 1)


async def _serves(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _send(environment: Mapping[str, str], value: bytes) -> None:
    settings = Settings.model_validate(environment)
    producer = Cluster(settings).producer(16_384, None)
    await producer.start()
    await producer.send_and_wait(settings.raw_topic, value)
    await producer.stop()


async def _letters(worker: harness.Worker, number: int) -> bool:
    return (await worker.metrics())['processor_dead_letters_total{stage="parse"}'] == number


def _last(environment: Mapping[str, str], *command: str) -> str:
    return harness.processor(environment, *command).splitlines()[-1]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_both_mechanisms_of_scram_let_us_in(secured: dict[str, str], mechanism: str) -> None:
    """By name as by address: the certificate has both."""
    for host in ("127.0.0.1", "localhost"):
        server = f"{host}:{secured['KAFKA_BOOTSTRAP_SERVERS'].rpartition(':')[2]}"
        changed = {"KAFKA_SASL_MECHANISM": mechanism, "KAFKA_BOOTSTRAP_SERVERS": server}
        async with at_start(Cluster(Settings.model_validate({**secured, **changed}))) as admin:
            assert len((await admin.describe_cluster())["brokers"]) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"KAFKA_SASL_PASSWORD": "wrong"}, "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_USERNAME": "nobody"}, "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_MECHANISM": "PLAIN"}, "KAFKA_SASL_MECHANISM"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SECURITY_PROTOCOL"),
        ({"KAFKA_SSL_CAFILE": None}, "KAFKA_SSL_CAFILE"),
        ({"KAFKA_SSL_CAFILE": "stranger"}, "KAFKA_SSL_CAFILE"),
        ({"KAFKA_SSL_CERTFILE": None}, "KAFKA_SSL_CERTFILE"),
        ({"KAFKA_SSL_CERTFILE": "stranger"}, "KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"),
    ],
    ids=str,
)
async def test_a_kafka_that_does_not_let_us_in_is_one_line_that_names_the_setting(
    secured: dict[str, str], certificates: Certificates, wrong: Mapping[str, str | None], said: str
) -> None:
    """And none of the secrets."""
    files = certificates._asdict()
    changed = {name: files.get(value or "", value) for name, value in wrong.items()}
    given = {name: value for name, value in {**secured, **changed}.items() if value is not None}
    with pytest.raises(StartRefused) as refused:
        async with at_start(Cluster(Settings.model_validate(given))):
            pytest.fail("we are let in")
    line = str(refused.value)
    assert line.endswith(f"; check {said}") or f"and {said}" in line
    assert "\n" not in line
    assert PASSWORD not in line


async def test_a_kafka_that_speaks_no_tls_is_one_line_that_names_the_setting(
    stack: Stack, secured: dict[str, str]
) -> None:
    """It ends the connection, whatever it makes of the first words."""
    plain = {**secured, "KAFKA_BOOTSTRAP_SERVERS": stack.kafka}
    with pytest.raises(StartRefused, match=r" and KAFKA_SECURITY_PROTOCOL$"):
        async with at_start(Cluster(Settings.model_validate(plain))):
            pytest.fail("we are let in")


async def test_a_kafka_with_the_certificate_of_another_host_is_refused(
    kafka: str, secured: dict[str, str], certificates: Certificates
) -> None:
    """The second of two brokers is asked as well, and the one that says why is named."""
    with tls_in_front_of(port_of(f"//{kafka}"), certificates.elsewhere) as proxy:
        servers = f"127.0.0.1:{harness.free_port()},127.0.0.1:{proxy.port}"
        given = {**secured, "KAFKA_BOOTSTRAP_SERVERS": servers}
        line = refusal({**os.environ, **given}, "topics", "create")
    assert f"certificate of 127.0.0.1:{proxy.port} is that of another host" in line
    assert "KAFKA_BOOTSTRAP_SERVERS" in line


@pytest.mark.parametrize("command", [("worker",), ("api",), ("engagement",), ("replay", "--yes")])
def test_each_command_ends_with_that_line(secured: dict[str, str], command: list[str]) -> None:
    """Exit code 2, and nothing beside the line."""
    line = refusal({**secured, "KAFKA_SASL_PASSWORD": "wrong"}, *command)
    assert line.endswith("check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
