"""Faust, tuned; at least once."""

import sys
from collections.abc import Sequence
from pathlib import Path

from processor.bench.contenders import Contender, Kind
from tests.bench.rivals.rules import rules


def contenders(folder: Path) -> Sequence[Contender]:
    """The one; the rules go into `folder`."""
    module = "tests.bench.rivals.faust_app"
    command = (sys.executable, "-m", module, "worker", "-l", "warn", "--without-web")
    return (Contender("faust", Kind.RIVAL, command, {"RULES": str(rules(folder))}),)
