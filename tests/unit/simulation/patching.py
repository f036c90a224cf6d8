"""Parts of the program with some of their text changed: what a defect would have made of it."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from processor import lanes, pipeline, worker
from processor.io import kafka_group
from processor.pure import lane, velocity
from tests.unit.simulation.stores import Parts


def patched(module: ModuleType, *changes: tuple[str, str], **names: object) -> Any:
    """A copy of a module, with some of its text changed and some names given."""
    source = Path(str(module.__file__)).read_text()
    for old, new in changes:
        assert source.count(old) == 1, (module.__name__, old, source.count(old))
        source = source.replace(old, new)
    copy = ModuleType(f"{module.__name__}_patched")
    sys.modules[copy.__name__] = copy  # classes look themselves up there
    exec(compile(source, str(module.__file__), "exec"), copy.__dict__)
    copy.__dict__.update(names)
    return copy


def pipeline_with(*changes: tuple[str, str]) -> Parts:
    """A pipeline with some of its text changed."""
    return Parts(pipeline=patched(pipeline, *changes).Pipeline)


def deciding(*changes: tuple[str, str]) -> Parts:
    """A pipeline that decides by a changed fold."""
    return Parts(pipeline=patched(pipeline, decide=patched(velocity, *changes).decide).Pipeline)


def lanes_with(*changes: tuple[str, str], **names: object) -> Parts:
    """Workers whose lanes have some of their text changed."""
    return Parts(worker=patched(worker, Lane=patched(lanes, *changes, **names).Lane).Worker)


def living_by(*changes: tuple[str, str]) -> Parts:
    """Workers whose lanes live by changed rules."""
    return lanes_with(rules=patched(lane, *changes))


def group_with(*changes: tuple[str, str]) -> Parts:
    """Workers whose memberships have some of their text changed."""
    return Parts(worker=patched(worker, Group=patched(kafka_group, *changes).Group).Worker)
