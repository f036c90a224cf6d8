"""What a command tells beside its output: how far it is, to whoever watches it on a terminal, and why it was refused."""

import sys
from collections.abc import Iterable
from contextlib import suppress

from processor.failures import Failure
from processor.pure.shown import shown

_TO_THE_BEGINNING_AND_CLEARED = "\r\033[K"


def in_place(line: str) -> None:
    """Shows a line in place of the last one; an empty one takes it away."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{_TO_THE_BEGINNING_AND_CLEARED}{line}")
        sys.stderr.flush()


def refused(failure: Failure) -> int:
    """Says why a command failed, a line each; its exit code."""
    complain(str(failure).splitlines())
    return 2


def complain(lines: Iterable[str]) -> None:
    """On stderr, where it can be written."""
    with suppress(OSError):
        for line in lines if sys.stderr else ():
            sys.stderr.write(f"processor: {shown(line)}\n")
