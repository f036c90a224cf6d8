"""The broker's jars: named with their hashes in ``jars.lock``, fetched once by jgo (pure Python: no Maven, no Java needed).

`classpath` fetches them; `lock` resolves the lock anew, for `make lock`.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from processor.failures import StartRefused

KAFKA_VERSION = "4.4.0"
_WANTED = "+".join(
    [
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        # Pinned: log4j's own dependency management takes it down to 3.9.1, which cannot start.
        f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
        # Without a binding the broker's log stays empty.
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
    ]
)
_LOCK = Path(__file__).with_name("jars.lock")
_AT_ONCE = 8


def classpath() -> str:
    """What ``java -cp`` takes; the first call on a machine downloads 45 MB.

    Raises `StartRefused` where the jars cannot be had.
    """
    folder = _folder()
    if not folder.exists():
        _fetch(folder)
    return f"{folder}/*"


def archive() -> Path:
    """Where the broker's class archive is, if it was made."""
    return _folder() / "broker.jsa"


def _folder() -> Path:
    return _home() / f"kafka-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"


def _home() -> Path:
    """Beside the packages, so that both go together; the user's cache where those belong to somebody else."""
    prefix = Path(sys.prefix)
    if os.access(prefix, os.W_OK) or (prefix / "jars").exists():
        return prefix / "jars"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "processor"


def _fetch(folder: Path) -> None:
    """Fills `folder` whole or not at all; two processes may do it at the same time."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        jars, maven = Path(scratch, "jars"), _maven(Path(scratch, "repository"))
        jars.mkdir()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(_fetch_one, maven, jars), _LOCK.read_text().splitlines()))
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
        raise StartRefused(f"{group}:{name}:{version} is not the jar of jars.lock: hash differs")
    shutil.move(path, jars / artifact.filename)


def _maven(repository: Path) -> Any:
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise StartRefused(
            "the embedded servers are not installed: pip install 'processor[embedded]'"
        ) from error
    return MavenContext(repo_cache=repository, resolver=PythonResolver(), timeout=60)


def lock() -> None:
    """Writes ``jars.lock``: everything that Kafka needs at run time, with the hashes of today."""
    from jgo.parse import Endpoint  # noqa: PLC0415  # an extra

    with tempfile.TemporaryDirectory() as scratch:
        maven = _maven(Path(scratch))
        wanted = [
            maven.create_dependency(replace(coordinate, scope="compile"))
            for coordinate in Endpoint.parse(_WANTED).coordinates
        ]
        direct, others = maven.resolver.resolve(wanted)
        needed = [*direct, *(d for d in others if d.scope in {"compile", "runtime"})]
        _LOCK.write_text("".join(sorted(map(_line, needed))))


def _line(dependency: Any) -> str:
    artifact = dependency.artifact
    digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
    return f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}\n"
