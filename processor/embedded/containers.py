"""The same three servers from images, where a Docker engine answers and ``STACK=containers`` asks for them.

They keep nothing once the stack has ended; while it runs, a killed server comes back with its data.
"""

from collections.abc import Callable, Iterable
from typing import Any

from processor.embedded.jars import KAFKA_VERSION
from processor.embedded.journal import Journal
from processor.embedded.processes import wait
from processor.embedded.recipes import LOOPBACK, answers
from processor.embedded.servers import START_WITHIN_S, STOP_WITHIN_S, Server
from processor.failures import StartRefused

IMAGES = {
    "kafka": f"apache/kafka:{KAFKA_VERSION}",
    "redis": "valkey/valkey:9.1.2",
    "postgres": "postgres:18.6",
}
"""Those of docker-compose.yml."""


def containers(names: Iterable[str], journal: Journal) -> dict[str, Server]:
    """One container each; raises `StartRefused` where no engine answers."""
    require_engine()
    makers: dict[str, Callable[[int, str], Server]] = {
        "kafka": _kafka,
        "redis": _valkey,
        "postgres": _postgres,
    }
    return {name: makers[name](journal.port(name), journal.password) for name in names}


def require_engine() -> None:
    """Raises `StartRefused` where no Docker engine answers."""
    try:
        import docker  # noqa: PLC0415  # an extra
    except ImportError as error:
        reason = "STACK=containers needs testcontainers: in a checkout run pip install '.[dev]'"
        raise StartRefused(reason) from error
    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except Exception as error:
        reason = "STACK=containers, but no Docker engine answers: start one, or unset STACK"
        raise StartRefused(reason) from error


class Container:
    """A container whose port is the same inside and outside, on loopback."""

    pids: list[int] = []  # noqa: RUF012  # never filled: its processes are the engine's

    def __init__(self, url: str, port: int, container: Any, *, ready: Callable[[], bool]) -> None:
        self.url = url
        container.ports[f"{port}/tcp"] = (LOOPBACK, port)
        self._container = container
        self._ready = ready
        self._created = False

    def start(self) -> None:
        """Creates it, or starts it again after `kill`."""
        if self._created:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._created = True
        if not wait(self._ready, START_WITHIN_S):
            tail = self._container.get_wrapped_container().logs(tail=40).decode(errors="replace")
            raise StartRefused(f"{self._container.image} does not come up:\n{tail}")

    def stop(self) -> None:
        """Removes it."""
        if self._created:
            self._container.get_wrapped_container().stop(timeout=int(STOP_WITHIN_S))
            self._container.stop()
            self._created = False

    def kill(self, number: int) -> None:
        """Signals its first process."""
        self._container.get_wrapped_container().kill(number)


def _image(name: str) -> Any:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # an extra

    return DockerContainer(name)


def _kafka(port: int, _password: str) -> Server:
    url = f"{LOOPBACK}:{port}"
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://localhost:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://{url}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "OFFSETS_TOPIC_NUM_PARTITIONS": "8",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "TRANSACTION_STATE_LOG_NUM_PARTITIONS": "8",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        "BROKER_SESSION_TIMEOUT_MS": "1000",
        "BROKER_HEARTBEAT_INTERVAL_MS": "200",
    }
    container = _image(IMAGES["kafka"])
    container.with_envs(**{f"KAFKA_{name}": value for name, value in settings.items()})
    return Container(url, port, container, ready=lambda: _says(container, "Kafka Server started"))


def _valkey(port: int, password: str) -> Server:
    flags = f'--port {port} --requirepass {password} --save "" --maxmemory-policy noeviction'
    container = _image(IMAGES["redis"]).with_command(f"valkey-server {flags}")
    ping = f"AUTH {password}\r\nPING\r\n".encode()
    url = f"redis://:{password}@{LOOPBACK}:{port}/0"
    return Container(url, port, container, ready=lambda: answers(port, ping, b"+OK"))


def _postgres(port: int, password: str) -> Server:
    container = _image(IMAGES["postgres"])
    container.with_envs(POSTGRES_PASSWORD=password, PGPORT=str(port))
    container.with_command("postgres -c max_connections=200 -c shared_buffers=256MB")
    url = f"postgresql://postgres:{password}@{LOOPBACK}:{port}/postgres"
    # The image starts once more after it has set itself up: only then is it open to other hosts,
    # and the engine's proxy closes what reaches it before.
    question = (8).to_bytes(4) + (80877103).to_bytes(4)  # SSLRequest, answered with S or N
    return Container(url, port, container, ready=lambda: answers(port, question, b"N"))


def _says(container: Any, line: str) -> bool:
    return line.encode() in container.get_wrapped_container().logs()
