"""What `processor doctor` finds: one line for each thing it looked at, and what to do where that is not as it should be."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Level: TypeAlias = Literal["ok", "warning", "fault"]


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    level: Level
    part: str
    said: str
    todo: str = ""
    """Empty where nothing is."""

    def __str__(self) -> str:
        advice = f"; {self.todo}" if self.todo else ""
        return f"{self.level:<8} {self.part}: {self.said}{advice}"


def ok(part: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", part, said)


def warning(part: str, said: str, todo: str) -> Finding:
    """It works, and will not for ever, or not as well as it could."""
    return Finding("warning", part, said, todo)


def fault(part: str, said: str, todo: str) -> Finding:
    """Something does not work, or something would be lost."""
    return Finding("fault", part, said, todo)


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each."""
    levels = [finding.level for finding in findings]
    warnings, faults = levels.count("warning"), levels.count("fault")
    return f"{levels.count('ok')} ok, {_number(warnings, 'warning')}, {_number(faults, 'fault')}"


def healthy(findings: Sequence[Finding]) -> bool:
    """Nothing is at fault; warnings may stand."""
    return all(finding.level != "fault" for finding in findings)


def length(milliseconds: int) -> str:
    """A duration as settings are written: ``7d``, ``90s``."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
