"""docker-compose.yml as `docker compose` reads it: merged, with its variables put in."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+):-([^}$]*)\})")
_SECONDS = {"s": 1, "m": 60}


@dataclass(frozen=True)
class Mount:
    """A bind mount, whose source is a path here, or a named volume, whose source is its name."""

    source: str
    target: str
    writable: bool

    @property
    def bound(self) -> bool:
        """Whether it is a file or folder of the repository."""
        return self.source.startswith("./")


def read(given: Mapping[str, str] | None = None) -> Any:
    """The whole file; `given` is the environment of the shell."""
    return _filled(yaml.safe_load(FILE.read_text()), given or {})


def ours(document: Any) -> dict[str, Any]:
    """The services that run the processor."""
    image = document["x-images"]["processor"]
    return {name: s for name, s in document["services"].items() if s["image"] == image}


def ends(service: Any) -> bool:
    """Whether it runs once."""
    return bool(service["restart"] == "no")


def in_order(document: Any) -> list[str]:
    """Every service after the ones it waits for; raises graphlib.CycleError."""
    waits = {name: list(s.get("depends_on", {})) for name, s in document["services"].items()}
    return list(TopologicalSorter(waits).static_order())


def mounts(service: Any) -> list[Mount]:
    """Of a service, in the order given."""
    return [_mount(text) for text in service.get("volumes", ())]


def seconds(duration: str) -> int:
    """Of a duration such as ``35s``."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def addresses(service: Any) -> Iterator[tuple[str, int]]:
    """Host and port of every server that its environment names."""
    for value in service["environment"].values():
        if found := re.fullmatch(r"(?:[a-z]+://(?:[^@/]*@)?)?([a-z]+):([0-9]+)(?:/\w*)?", value):
            yield found[1], int(found[2])


def _mount(text: str) -> Mount:
    source, target, *options = text.split(":")
    return Mount(source, target, options != ["ro"])


def _filled(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(child, given) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, given) for child in value]
    return _interpolated(value, given) if isinstance(value, str) else value


def _interpolated(text: str, given: Mapping[str, str]) -> str:
    """``$$`` is a dollar, ``${NAME:-default}`` a variable or what stands for it; any other dollar is a mistake."""
    assert "$" not in _VARIABLE.sub("", text), text
    return _VARIABLE.sub(lambda found: found[1] or given.get(found[2]) or found[3], text)
