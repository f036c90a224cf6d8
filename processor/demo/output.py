"""What the demo says, and how it learns that nobody reads it any more."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_GONE = {errno.EPIPE, errno.EIO}
"""Of a pipe whose reader has ended, and of a terminal that was closed."""


class Unread(Exception):  # it is an end, not an error
    """Nobody reads the output any more; what is written from now on goes nowhere."""


@contextmanager
def read() -> Iterator[None]:
    """Raises `Unread` where the block writes for nobody."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        # Else what is left in the buffer fails once more when the process exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise Unread from error


def say(line: str) -> None:
    """A line at once, also into a pipe; raises `Unread`."""
    with read():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
