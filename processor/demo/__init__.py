"""`processor demo`: the real thing, started from nothing, watched live and checked at the end.

Only what starts the servers is imported here: they come up while everything else is being imported.
"""

import os
import signal
import sys

from processor.demo.output import Unread, say
from processor.demo.servers import Servers
from processor.embedded.processes import endings


class Ended(BaseException):
    """A signal came before anything was shown."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(seconds: float | None = None) -> int:
    """Runs for `seconds`, then checks everything; without, until Ctrl-C, SIGTERM or the end of its terminal and without a check.

    The exit code: 0, or 1 where the check found a difference.  An interrupted run that was to be checked has
    128 + the signal, which is SIGPIPE where nobody reads its output any more.  Raises `Failure` when a server or the worker dies; whatever happens, no process is left.
    """
    servers = Servers()
    try:
        for number in endings():
            signal.signal(number, _end)
        servers.begin()
        say("processor demo: starting the servers")  # before slow imports
        from processor.demo.play import run  # noqa: PLC0415  # while the servers start

        code = run(servers, seconds)
    except Ended as signalled:
        code = 128 + signalled.number
    except Unread:
        code = 128 + signal.SIGPIPE
    finally:
        _ignore()
        ended = servers.stop()
    if not ended:
        sys.stdout.flush()
        os._exit(code)  # a download cannot be interrupted, and would be waited for
    return code


def _end(number: int, _frame: object) -> None:
    _ignore()
    raise Ended(number)


def _ignore() -> None:
    """Nothing takes long from here on."""
    for number in endings():
        signal.signal(number, signal.SIG_IGN)
