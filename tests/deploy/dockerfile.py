"""deploy/Dockerfile: its stages, and the virtual environment its first stage makes, made here without an engine."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement

from tests.deploy.compose import ROOT

FILE = ROOT / "deploy" / "Dockerfile"
LOCK = ROOT / "deploy" / "runtime.lock"


@dataclass(frozen=True)
class Stage:
    """What one FROM begins."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction and arguments."""

    def every(self, instruction: str) -> list[str]:
        """The arguments of each such instruction."""
        return [arguments for name, arguments in self.steps if name == instruction]


def read() -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage with their defaults, and the stages."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction, rest in _instructions(FILE.read_text()):
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].steps.append((instruction, rest))
        else:
            name, _, default = rest.partition("=")
            arguments[name] = default
    return arguments, stages


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, rest = line.split(maxsplit=1)
            yield instruction, rest.strip()


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the repository out of the build; the last line that fits decides."""
    parts = path.split("/")
    names = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    kept_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#"):
            fits = any(fnmatch(name, pattern) or fnmatch("/" + name, pattern) for name in names)
            kept_out = not line.startswith("!") if fits else kept_out
    return kept_out


def build(root: Path) -> Path:
    """Runs the first stage below `root`, and returns its virtual environment.

    Only the line that installs the lock is not run: it would ask the network for what is installed here already, in the very
    versions (the locks agree).  Exactly the packages of the lock are copied instead.
    """
    _, (stage, _) = read()
    for instruction, arguments in stage.steps:
        if instruction == "COPY":
            source, target = arguments.split()
            _copy(source, root / "src" / target)
        elif "--requirement deploy/runtime.lock" in arguments:
            _install_lock(root / "opt" / "venv")
        elif instruction == "RUN":
            _run(root, arguments)
    return root / "opt" / "venv"


def _copy(source: str, target: Path) -> None:
    """As the build sees it: without what is ignored."""
    files = [ROOT / source] if (ROOT / source).is_file() else (ROOT / source).rglob("*")
    for path in files:
        name = str(path.relative_to(ROOT))
        if path.is_file() and not ignored(name):
            copied = target if path == ROOT / source else target / path.relative_to(ROOT / source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copied)


def _run(root: Path, command: str) -> None:
    for place in ("/opt/venv", "/src"):
        command = command.replace(place, shlex.quote(str(root / place[1:])))
    (root / "src").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        cwd=root / "src",
        env={"PATH": path, "HOME": str(root), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def locked() -> list[str]:
    """The packages of runtime.lock that this platform needs."""
    lines = [line for line in LOCK.read_text().splitlines() if line[:1].isalnum()]
    wanted = [Requirement(line.removesuffix("\\").strip()) for line in lines]
    return [one.name for one in wanted if one.marker is None or one.marker.evaluate()]


def _install_lock(venv: Path) -> None:
    (target,) = venv.glob("lib/python*/site-packages")
    for name in locked():
        for file in distribution(name).files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file():
                _install(path, target / file)


def _install(path: Path, target: Path) -> None:
    """With its bytecode, where there is some: the image compiles what it installs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
    cached = Path(cache_from_source(str(path)))
    if path.suffix == ".py" and cached.exists():
        kept = target.parent / "__pycache__" / cached.name
        kept.parent.mkdir(exist_ok=True)
        shutil.copy2(cached, kept)
