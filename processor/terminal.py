"""What a long command tells whoever watches it on a terminal; nobody else hears of it."""

import sys

_TO_THE_BEGINNING_AND_CLEARED = "\r\033[K"


def in_place(line: str) -> None:
    """Shows a line in place of the last one; an empty one takes it away."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{_TO_THE_BEGINNING_AND_CLEARED}{line}")
        sys.stderr.flush()
