"""deploy/Dockerfile: small, multi-stage, no root, from the hashed lock; and its environment runs every command."""

import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy import compose, dockerfile
from tests.deploy.compose import ROOT

_, STAGES = dockerfile.read()
BUILD, FINAL = STAGES


def test_the_image_is_the_environment_of_the_build_and_nothing_of_its_tools() -> None:
    """What runs in the last stage installs nothing."""
    assert BUILD.name == "build"
    assert FINAL.every("COPY") == ["--from=build /opt/venv /opt/venv"]
    (only,) = FINAL.every("RUN")
    assert only.startswith("install --directory --owner=10001 --group=10001 ")


def test_packages_come_from_the_lock_with_their_hashes_as_wheels() -> None:
    """And the program itself from what was copied, asking nobody."""
    locked, own = (line for line in BUILD.every("RUN") if " install " in line)
    for option in ("--require-hashes", "--only-binary :all:", "--requirement deploy/runtime.lock"):
        assert option in locked
    for option in ("--no-deps", "--no-build-isolation", "--no-index"):
        assert option in own


def test_what_is_copied_exists_and_is_sent_to_the_engine() -> None:
    """Nothing else is: no tests, no notes, no secrets of a folder."""
    sources = [arguments.split()[0] for arguments in BUILD.every("COPY")]
    for source in sources:
        assert (ROOT / source).exists()
        assert not dockerfile.ignored(source)
    assert dockerfile.ignored("processor/pure/__pycache__/lane.cpython-311.pyc")
    sent = [p.name for p in ROOT.iterdir() if not dockerfile.ignored(p.name)]
    assert sorted(sent) == ["processor", "pyproject.toml", "schemas"]


def test_the_image_runs_the_console_script_as_somebody() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (user,) = FINAL.every("USER")
    assert all(int(part) > 0 for part in user.split(":"))
    assert FINAL.every("ENTRYPOINT") == ['["processor"]']
    assert "processor" in scripts


def test_the_folder_that_may_be_written_is_where_the_volume_is() -> None:
    (folder,) = FINAL.every("WORKDIR")
    assert FINAL.every("RUN")[0].endswith(f" {folder}")
    targets = [
        mount.target
        for service in compose.ours(compose.read()).values()
        for mount in compose.mounts(service)
        if not mount.bound
    ]
    assert targets == [folder]


def _run(venv: Path, code: str) -> str:
    done = subprocess.run(
        [venv / "bin" / "python", "-I", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": str(venv / "bin")},
    )
    return done.stdout


@pytest.mark.timeout(120)
def test_the_environment_has_the_lock_and_the_program_and_no_tools(image: Path) -> None:
    """Hatchling builds the program; what nothing else needs goes with it, and nothing that something needs."""
    code = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    there = set(map(canonicalize_name, _run(image, code).split()))
    wanted = {canonicalize_name(name) for name in dockerfile.locked()} | {"processor"}
    assert there == wanted - {"hatchling", "pathspec", "pluggy", "trove-classifiers"}
    needed = {
        canonicalize_name(requirement.name)
        for name in there
        for requirement in map(Requirement, distribution(name).requires or ())
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    assert needed <= there


@pytest.mark.parametrize("module", ["worker", "api.server", "io.filters", "io.kafka_topics"])
def test_the_environment_has_what_the_commands_import(image: Path, module: str) -> None:
    """And takes it from the image, not from the folder it is run in."""
    code = f"import processor.{module} as found; print(found.__file__)"
    assert _run(image, code).startswith(str(image))
