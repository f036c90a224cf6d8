"""Servers that ask who one is: a Kafka with an authorizer, whose rights are those that the runbook lists.

Beside its users and their rights it is the Kafka of the embedded stack.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from processor.embedded.journal import Journal
from processor.embedded.processes import Spawner
from processor.embedded.recipes import FAST_START, Kafka
from processor.embedded.servers import Process
from processor.settings import Settings

RUNBOOK = Path(__file__).parents[1] / "deploy" / "RUNBOOK.md"
ADMIN = "admin"
LISTENER = "SASL_PLAINTEXT"
RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
PATTERNS = {"literal": 3, "prefixed": 4}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_ALLOW = 3


class Right(NamedTuple):
    """What a user may do with resources."""

    user: str
    resource: str
    name: str
    pattern: str
    operations: tuple[str, ...]


def rights() -> list[Right]:
    """The ``kafka-acls.sh`` lines of the runbook."""
    line = re.compile(
        r"^kafka-acls.sh .*--add --allow-principal User:(\S+) (.*?) --(topic|group|transactional-id|cluster)"
        r"(?: (\S+))?(?: --resource-pattern-type (literal|prefixed))?$",
        re.MULTILINE,
    )
    found = line.findall(RUNBOOK.read_text().replace("\\\n", " "))
    return [
        Right(
            user, resource, name or "kafka-cluster", pattern or "literal", tuple(ops.split()[1::2])
        )
        for user, ops, resource, name, pattern in found
    ]


def command_of(beginning: str) -> str:
    """The line of the runbook that begins so."""
    found = re.search(rf"^{re.escape(beginning)}.*$", RUNBOOK.read_text(), re.MULTILINE)
    assert found, beginning
    return found[0]


async def restored_places(url: str, names: Mapping[str, str]) -> dict[int, int]:
    """Where the partitions of the raw topic go on, as the runbook asks a restored database; `names` replace what stands there."""
    found = re.search(r'psql "\$DATABASE_URL" -Atc "([^"]+events\.raw[^"]+)"', RUNBOOK.read_text())
    assert found
    statement = found[1]
    for name, instead in names.items():
        statement = statement.replace(name, f"'{instead}'")
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(statement)
        return {row["partition"]: row["next_offset"] for row in rows}
    finally:
        await connection.close()


def user_of(url: str, name: str) -> str:
    """The URL for this user, with the password that stands in the runbook."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:PASSWORD@{place}"))


class SecuredKafka(Kafka):
    """Lets in whom it knows, by SASL; a password is the name of its user."""

    users: tuple[str, ...] = ()

    def _properties(self) -> str:
        users = " ".join(f'user_{name}="{name}"' for name in (ADMIN, *self.users))
        login = f'username="{ADMIN}" password="{ADMIN}"'
        more = {
            "security.inter.broker.protocol": LISTENER,
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.enabled.mechanisms": "PLAIN",
            f"listener.name.{LISTENER.lower()}.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {login} {users};"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{ADMIN};User:ANONYMOUS",  # nobody else: of the controller's listener
        }
        plain = super()._properties().replace("PLAINTEXT://" + self.url, f"{LISTENER}://{self.url}")
        plain = plain.replace(",PLAINTEXT:PLAINTEXT", f",{LISTENER}:{LISTENER}")
        return plain + "".join(f"{key}={value}\n" for key, value in more.items())


@contextmanager
def secured_kafka(folder: Path, users: Iterable[str]) -> Iterator[str]:
    """Its bootstrap server, for as long as the block runs."""
    journal = Journal(folder)
    port, controller = journal.port("kafka"), journal.port("controller")
    recipe = type("Recipe", (SecuredKafka,), {"users": tuple(users)})(
        folder / "kafka", port, controller, "384m", FAST_START
    )
    server = Process("kafka", recipe, journal, Spawner())
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


def as_user(kafka: str, user: str) -> dict[str, str]:
    """The variables with which a processor is this user of a secured Kafka."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_SECURITY_PROTOCOL": LISTENER,
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": user,
    }


async def grant(admin: AIOKafkaAdminClient, wanted: Iterable[Right]) -> None:
    """Gives every right."""
    for user, resource, name, pattern, operations in wanted:
        of = (RESOURCES[resource], name, PATTERNS[pattern])
        for operation in operations:
            to = (f"User:{user}", "*", OPERATIONS[operation], _ALLOW)
            answer = await admin._send_request(CreateAclsRequest(*of, *to))
            assert [code for code, _ in answer.creation_responses] == [0], answer


def settings(kafka: str, user: str) -> Settings:
    """The same for code under test in this process."""
    return Settings.model_validate(as_user(kafka, user))
