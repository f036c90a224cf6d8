"""Quix Streams, in a virtual environment of its own from `deploy/bench.lock`: what it needs does not go with what the project needs."""

import hashlib
import shutil
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from processor.bench.contenders import Contender, Kind
from processor.embedded.processes import run
from tests.bench.rivals.rules import rules

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "deploy" / "bench.lock"
_APP = Path(__file__).with_name("quix_app.py")


def contenders(folder: Path) -> Sequence[Contender]:
    """Both guarantees; the rules go into `folder`.  Raises `StartRefused`."""
    command = (str(_python(ROOT / ".cache" / "bench")), str(_APP))
    told = {"RULES": str(rules(folder))}
    return tuple(
        Contender(
            f"quix_{guarantee.replace('-', '_')}",
            Kind.RIVAL,
            command,
            {**told, "GUARANTEE": guarantee},
        )
        for guarantee in ("exactly-once", "at-least-once")
    )


def _python(cache: Path) -> Path:
    """Of the environment, made whole or not at all at the first call for this lock."""
    home = cache / f"quix-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    if not (home / "whole").exists():
        shutil.rmtree(home, ignore_errors=True)
        sys.stderr.write(f"installing Quix Streams into {home}, once\n")
        venv.create(home, with_pip=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([*pip, "install", "--no-compile", "--require-hashes", "--requirement", str(LOCK)])
        (home / "whole").touch()
    return home / "bin" / "python"
