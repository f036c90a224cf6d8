"""`processor demo`: the real thing, started from nothing, watched live and checked at the end.

Only what starts the servers is imported here: they come up while everything else is being imported.
"""

import os
import signal
import sys

from processor.demo.servers import Servers


def main(seconds: float | None = None) -> int:
    """Runs for `seconds`, then checks everything; without, until Ctrl-C or SIGTERM and without a check.

    The exit code: 0, or 1 where the check found a difference.  An interrupted run that was to be checked has
    128 + the signal.  Raises `Failure` when a server or the worker dies; whatever happens, no process is left.
    """
    servers = Servers()
    try:
        servers.begin()
        print("processor demo: starting the servers", flush=True)  # noqa: T201  # before slow imports
        from processor.demo.play import run  # noqa: PLC0415  # while the servers start

        code = run(servers, seconds)
    except KeyboardInterrupt:  # nothing was shown yet
        code = 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # nothing takes long from here on
        ended = servers.stop()
    if not ended:
        sys.stdout.flush()
        os._exit(code)  # a download cannot be interrupted, and would be waited for
    return code
