"""A Kafka that is spoken to by TLS and asks who one is by SCRAM; beside that it is the one of the embedded stack."""

import base64
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from processor.embedded.journal import Journal
from processor.embedded.processes import Spawner, run
from processor.embedded.recipes import FAST_START, Kafka
from processor.embedded.servers import Process

LISTENER = "SASL_SSL"
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")


class TlsKafka(Kafka):
    """Its only listener is by TLS and asks for a certificate, its users are known by SCRAM alone."""

    users: Mapping[str, str] = {}
    certificate: Path

    def prepare(self) -> None:
        """The users are part of the format: nobody can come in to make the first one."""
        properties = self.folder / "server.properties"
        properties.write_text(self._properties())
        cluster = "o" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")[1:]
        told = [
            word
            for name, password in self.users.items()
            for mechanism in MECHANISMS
            for word in ("--add-scram", f'{mechanism}=[name="{name}",password="{password}"]')
        ]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, *told]
        run([*self._java(*FAST_START), *tool, "-c", str(properties)])

    def _properties(self) -> str:
        name, password = next(iter(self.users.items()))
        login = f'username="{name}" password="{password}"'
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        more = {
            "security.inter.broker.protocol": LISTENER,
            "sasl.mechanism.inter.broker.protocol": MECHANISMS[1],
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"listener.name.{LISTENER.lower()}.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificate,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificate.with_name("authority.pem"),
        } | {
            f"listener.name.{LISTENER.lower()}.{mechanism.lower()}.sasl.jaas.config": (
                f"{module} required {login};"
            )
            for mechanism in MECHANISMS
        }
        plain = super()._properties().replace("PLAINTEXT://" + self.url, f"{LISTENER}://{self.url}")
        plain = plain.replace(",PLAINTEXT:PLAINTEXT", f",{LISTENER}:{LISTENER}")
        return plain + "".join(f"{key}={value}\n" for key, value in more.items())


@contextmanager
def tls_kafka(folder: Path, certificate: Path, users: Mapping[str, str]) -> Iterator[str]:
    """Its bootstrap server, for as long as the block runs; the first user is the broker itself."""
    journal = Journal(folder)
    port, controller = journal.port("kafka"), journal.port("controller")
    recipe = type("Recipe", (TlsKafka,), {"users": users, "certificate": certificate})(
        folder / "kafka", port, controller, "384m", FAST_START
    )
    server = Process("kafka", recipe, journal, Spawner())
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
