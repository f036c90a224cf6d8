"""What the repository promises about itself: locks, contracts, the wheel, and checks that can fail."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {
    "demo.lock": ["embedded"],
    "dev.lock": list(EXTRAS),
    "runtime.lock": ["api", "engagement"],
}
ALL_LOCKS = (*LOCKS, "bench.lock")
"""The last is of a rival in a virtual environment of its own."""
PACKAGES = ("processor", "schemas")
TEXT = {
    ".cfg",
    ".ini",
    ".java",
    ".json",
    ".lock",
    ".lua",
    ".md",
    ".py",
    ".sql",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
}
PURE_MAY_IMPORT = {
    "array", "base64", "binascii", "bisect", "codecs", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "hashlib", "heapq", "ipaddress", "itertools", "json", "math", "msgspec", "operator", "orjson",
    "re", "re2", "string", "struct", "types", "typing", "typing_extensions", "unicodedata", "uuid", "zlib",
}  # fmt: skip
"""msgspec, re2 and orjson, and of the standard library what neither reads a clock nor does I/O."""


def _locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package of a lock."""
    text = (ROOT / "deploy" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parsed = [re.match(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines]
    assert all(parsed), "a line of the lock pins no version"
    return {
        canonicalize_name(found[1]): (found[2], line.count("--hash=sha256:"))
        for found, line in zip(parsed, lines, strict=True)
        if found
    }


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    assert [package for package, (_, hashes) in _locked(name).items() if not hashes] == []


@pytest.mark.parametrize("name", ALL_LOCKS)
def test_a_lock_names_no_host(name: str) -> None:
    assert not re.search(
        r"://|index-url|find-links|trusted-host", (ROOT / "deploy" / name).read_text()
    )


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_satisfies_what_the_project_asks_for(name: str) -> None:
    locked = _locked(name)
    asked = [Requirement(text) for text in PROJECT["dependencies"]]
    asked += [Requirement(text) for extra in LOCKS[name] for text in EXTRAS[extra]]
    for requirement in asked:
        version, _ = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_locks_agree_so_one_virtual_environment_serves_every_command() -> None:
    development = _locked("dev.lock")
    for name in LOCKS:
        assert _locked(name).items() <= development.items()


def test_the_changelog_speaks_of_the_version() -> None:
    newest = re.search(r"^## \[([0-9][^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == PROJECT["version"]


def test_the_wheel_holds_every_file_of_both_packages(tmp_path: Path) -> None:
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("processor-")}
    assert packed == {str(path.relative_to(ROOT)) for path in _files(*PACKAGES)}
    assert {"processor/py.typed", "schemas/py.typed"} <= packed


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    somebodys = re.compile(r"(?<![\w.])/(?:work|tmp/v|root|home/\w+)/|\.\./" + "shared")
    files = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT]
    files += [path for path in _files(*PACKAGES, "tests", "deploy") if path.suffix in TEXT]
    assert [path for path in files if somebodys.search(path.read_text())] == []


def test_pure_imports_only_itself_and_what_has_no_effects() -> None:
    strangers = {
        (path.name, name)
        for path in (ROOT / "processor" / "pure").rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] not in PURE_MAY_IMPORT
        and not name.startswith(("processor.pure", "schemas.names"))
    }
    assert strangers == set()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or "processor.pure"


def _run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).with_name(program)
    assert path.exists(), f"{program} is missing: make .venv/.dev"
    return subprocess.run(
        [path, *arguments], check=False, capture_output=True, text=True, cwd=folder
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's code and configuration, to break."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "contracts.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_lint_fails_on_a_clock_read_where_time_is_an_argument(copy: Path) -> None:
    (copy / "processor" / "broken.py").write_text(
        '"""Broken."""\nimport time\n\nNOW = time.time()\n'
    )
    assert "TID251" in _run(copy, "ruff", "check", "processor/broken.py").stdout


def test_the_import_contracts_fail_on_a_driver_outside_io_and_on_io_inside_pure(copy: Path) -> None:
    (copy / "processor" / "broken.py").write_text('"""Broken."""\nimport redis\n')
    (copy / "processor" / "pure" / "broken.py").write_text('"""Broken."""\nimport asyncio\n')
    (copy / "schemas" / "broken.py").write_text('"""Broken."""\nimport processor\n')
    done = _run(copy, "lint-imports", "--config", "contracts.toml", "--no-cache")
    assert done.returncode == 1
    assert "0 kept, 3 broken" in done.stdout
