"""A real cluster of Valkey on loopback: three primaries with a third of the slots each, and a replica of the first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from processor.embedded.journal import Journal
from processor.embedded.processes import Spawner
from processor.embedded.recipes import LOOPBACK, Valkey
from processor.embedded.servers import Process
from tests.harness_waiting import until_now

PRIMARIES, REPLICA = ("n0", "n1", "n2"), "n3"
NODES = (*PRIMARIES, REPLICA)
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
"""After so long without an answer a node is taken for dead."""


@dataclass(frozen=True)
class Node(Valkey):
    """A Valkey that belongs to a cluster, and knows it again after a restart."""

    bus: int = 0

    def prepare(self) -> None:
        """As ever, with what makes it a node."""
        super().prepare()
        with (self.folder / "valkey.conf").open("a") as config:
            config.write(
                f"cluster-enabled yes\ncluster-port {self.bus}\ncluster-config-file nodes.conf\n"
                f"cluster-node-timeout {NODE_TIMEOUT_MS}\ncluster-replica-validity-factor 0\n"
                f"primaryauth {self.password}\nrepl-diskless-sync-delay 0\n"
            )


class Cluster:
    """Its nodes by name, each with a client of its own, and the URL that brings a processor there."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder)
        self._journal.own()
        spawner = Spawner()
        self._recipes = {
            name: Node(
                folder / name,
                self._journal.port(name),
                self._journal.password,
                self._journal.port(f"{name}.bus"),
            )
            for name in NODES
        }
        self._servers = {
            name: Process(name, recipe, self._journal, spawner)
            for name, recipe in self._recipes.items()
        }
        self.nodes = {
            name: redis.Redis.from_url(
                recipe.url, socket_timeout=2, protocol=2, retry=Retry(NoBackoff(), 0)
            )
            for name, recipe in self._recipes.items()
        }

    @property
    def url(self) -> str:
        """Names the primaries."""
        servers = ",".join(f"{LOOPBACK}:{self._recipes[name].port}" for name in PRIMARIES)
        return f"redis://:{self._journal.password}@{servers}/0"

    def start(self) -> None:
        """Returns when every node knows all and every slot is served."""
        for server in self._servers.values():
            server.start()
        for n, name in enumerate(PRIMARIES):
            first, last = SLOTS * n // len(PRIMARIES), SLOTS * (n + 1) // len(PRIMARIES) - 1
            self.ask(name, "CLUSTER", "ADDSLOTSRANGE", first, last)
            self.ask(name, "CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for recipe in self._recipes.values():
            self.ask("n0", "CLUSTER", "MEET", LOOPBACK, recipe.port, recipe.bus)
        until_now(lambda: all(self._knows(name) == len(NODES) for name in NODES), 30)
        self.ask(REPLICA, "CLUSTER", "REPLICATE", self.id(PRIMARIES[0]))
        self.whole()

    def stop(self) -> None:
        """Ends every node."""
        for client in self.nodes.values():
            client.close()
        for server in self._servers.values():
            server.stop()
        self._journal.release()

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to one."""
        self._servers[name].kill(number)

    def revive(self, name: str) -> None:
        """Starts a killed one again: it keeps its name and slots, and nothing else."""
        self._servers[name].start()

    def ask(self, name: str, *command: Any) -> Any:
        """What a node answers."""
        return self.nodes[name].execute_command(*command)

    def id(self, name: str) -> str:
        """How the cluster calls a node."""
        return str(self.ask(name, "CLUSTER", "MYID").decode())

    def pids(self) -> list[int]:
        """The process of each node."""
        return [server.pids[0] for server in self._servers.values()]

    def port(self, name: str) -> int:
        """Where a node listens."""
        return self._recipes[name].port

    def empty(self) -> None:
        """Every primary forgets everything."""
        for name in NODES:
            if self.is_primary(name):
                self.ask(name, "FLUSHALL")

    def is_primary(self, name: str) -> bool:
        """Whether it answers and takes writes."""
        with suppress(redis.RedisError, OSError):
            return bool(self.ask(name, "ROLE")[0] == b"master")
        return False

    def owner(self, tag: str) -> str:
        """The node that serves the keys with a hash tag."""
        return str(self._serves(self.primaries()[0], key_slot(tag.encode())))

    def used(self, *names: str) -> set[int]:
        """The slots of which these nodes hold anything."""
        keys = [key for name in names for key in self.ask(name, "KEYS", "*")]
        return {key_slot(key) for key in keys}

    def primaries(self) -> list[str]:
        """The nodes that take writes now."""
        return [name for name in NODES if self.is_primary(name)]

    def replicas(self, name: str) -> int:
        """How many follow it."""
        return len(self.ask(name, "ROLE")[2])

    def in_step(self, name: str) -> str:
        """The replica of a primary, once it has all its primary had."""
        has = self.ask(name, "ROLE")[1]
        heir = next(n for n in NODES if not self.is_primary(n))
        until_now(lambda: self.ask(heir, "ROLE")[4] >= has, 10)
        return heir

    def moving(self, slot: int, source: str, target: str) -> None:
        """A slot begins to move: from now on its keys may be here or there."""
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))

    def move(self, keys: list[bytes], source: str, target: str) -> None:
        """Takes keys of a slot that is moving to their new node."""
        login = ("AUTH", self._journal.password)
        to = (LOOPBACK, self.port(target), "", 0, 5000)
        self.ask(source, "MIGRATE", *to, *login, "KEYS", *keys)

    def stays(self, slot: int, source: str, target: str) -> None:
        """The slot does not move, after all."""
        for name in (source, target):
            self.ask(name, "CLUSTER", "SETSLOT", slot, "STABLE")

    def moved(self, slot: int, target: str) -> None:
        """The slot is where it shall be, and all know it."""
        for name in dict.fromkeys([target, *self.primaries()]):
            self.ask(name, "CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def move_whole(self, slot: int, source: str, target: str) -> None:
        """Moves a slot in one go, as Valkey 9 can."""
        self.ask(
            source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id(target)
        )
        until_now(lambda: all(self._serves(name, slot) == target for name in NODES), 20)

    def keys(self, name: str, slot: int) -> list[bytes]:
        """What a node holds of a slot."""
        return list(self.ask(name, "CLUSTER", "GETKEYSINSLOT", slot, 100_000))

    def whole(self) -> None:
        """Returns when all agree that every slot is served, and the replica has all its primary had."""
        until_now(lambda: all(map(self._well, NODES)), 30)

    def _serves(self, seen_by: str, slot: int) -> str | None:
        """The node that serves a slot, as another one sees it."""
        names = {self.port(name): name for name in NODES}
        for first, last, primary, *_ in self.ask(seen_by, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return names[primary[1]]
        return None

    def _knows(self, name: str) -> int:
        return int(self._info(name)["cluster_known_nodes"])

    def _info(self, name: str) -> dict[str, str]:
        text = self.ask(name, "CLUSTER", "INFO")
        lines = (text.decode() if isinstance(text, bytes) else str(text)).split()
        return dict(line.split(":", 1) for line in lines)

    def _well(self, name: str) -> bool:
        with suppress(redis.RedisError, OSError):
            ok = self._info(name)["cluster_state"] == "ok"
            seen = self.ask(name, "CLUSTER", "NODES").decode()
            role = self.ask(name, "ROLE")
            in_step = role[0] == b"master" or role[3] == b"connected"
            return ok and "fail" not in seen and "handshake" not in seen and in_step
        return False


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    """A started cluster for as long as the block runs."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
