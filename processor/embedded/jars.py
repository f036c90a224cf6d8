"""Jars, named with their hashes in a lock and fetched once by jgo (pure Python: no Maven, no Java needed); the broker's are in ``jars.lock``."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from processor.failures import StartRefused

KAFKA_VERSION = "4.4.0"
_AT_ONCE = 8


@dataclass(frozen=True)
class Jars:
    """What `lock` names: everything that `wanted`, coordinates joined by ``+``, need at run time."""

    name: str
    lock: Path
    wanted: str

    @property
    def folder(self) -> Path:
        """Where they are, once they were fetched."""
        digest = hashlib.sha256(self.lock.read_bytes()).hexdigest()
        return _home() / f"{self.name}-{digest[:16]}"

    def classpath(self) -> str:
        """What ``java -cp`` takes; the first call on a machine downloads them.

        Raises `StartRefused` where they cannot be had.
        """
        if not self.folder.exists():
            _fetch(self.lock.read_text().splitlines(), self.folder)
        return f"{self.folder}/*"

    def resolve(self) -> None:
        """Writes the lock anew, with the hashes of today."""
        from jgo.parse import Endpoint  # noqa: PLC0415  # an extra

        with tempfile.TemporaryDirectory() as scratch:
            maven = _maven(Path(scratch))
            wanted = [
                maven.create_dependency(replace(coordinate, scope="compile"))
                for coordinate in Endpoint.parse(self.wanted).coordinates
            ]
            direct, others = maven.resolver.resolve(wanted)
            needed = [*direct, *(d for d in others if d.scope in {"compile", "runtime"})]
            self.lock.write_text("".join(sorted(map(_line, needed))))


BROKER = Jars(
    "kafka",
    Path(__file__).with_name("jars.lock"),
    "+".join(
        [
            f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
            # Pinned: log4j's own dependency management takes it down to 3.9.1, which cannot start.
            f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
            # Without a binding the broker's log stays empty.
            "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
        ]
    ),
)


def archive() -> Path:
    """Where the broker's class archive is, if it was made."""
    return BROKER.folder / "broker.jsa"


def _home() -> Path:
    """Beside the packages, so that both go together; the user's cache where those belong to somebody else."""
    prefix = Path(sys.prefix)
    if os.access(prefix, os.W_OK) or (prefix / "jars").exists():
        return prefix / "jars"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "processor"


def _fetch(lines: Sequence[str], folder: Path) -> None:
    """Fills `folder` with the jars of a lock, whole or not at all; two processes may do it at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        jars, maven = Path(scratch, "jars"), _maven(Path(scratch, "repository"))
        jars.mkdir()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(_fetch_one, maven, jars), lines))
        jars.chmod(0o755)
        try:
            jars.rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _fetch_one(maven: Any, jars: Path, line: str) -> None:
    """Puts one jar of the lock into `jars`; its hash must be the one in the lock."""
    group, name, version, digest = line.replace(":", " ").split()
    artifact = maven.project(group, name).at_version(version).artifact()
    try:
        path = artifact.resolve()
    except Exception as error:
        advice = "the first start needs the network"
        raise StartRefused(f"cannot fetch {group}:{name}:{version}: {error}; {advice}") from error
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise StartRefused(f"{group}:{name}:{version} is not the jar of the lock: hash differs")
    shutil.move(path, jars / artifact.filename)


def _maven(repository: Path) -> Any:
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise StartRefused(
            "the embedded servers are not installed: in a checkout run pip install '.[embedded]'"
        ) from error
    return MavenContext(repo_cache=repository, resolver=PythonResolver(), timeout=60)


def _line(dependency: Any) -> str:
    artifact = dependency.artifact
    digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
    return f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}\n"
