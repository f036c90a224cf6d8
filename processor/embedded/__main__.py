"""``python -m processor.embedded FOLDER``: the three servers for as long as it runs, on the data of FOLDER.

Prints the environment of a processor as shell lines once all of them serve; ends with Ctrl-C, SIGTERM or its terminal.
"""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from threading import Thread

from processor.embedded import Stack
from processor.embedded.processes import children, cut_off, endings
from processor.failures import StartRefused

GIVE_UP_AFTER_S = 2.0
_START_ENDED = 0
"""Beside the numbers of signals."""


class News:
    """Signals, and that the start has ended, in a pipe: a thread that goes to sleep as a signal comes would not hear of it otherwise."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.failed: Exception | None = None
        """Why the start ended, where the servers do not serve."""
        for ending in endings():
            signal.signal(ending, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def start_ended(self) -> None:
        """From any thread."""
        os.write(self._write, bytes([_START_ENDED]))

    def wait(self) -> int:
        """The number of a signal, or `_START_ENDED`."""
        return os.read(self._read, 1)[0]


def main() -> int:
    """Exit code 2 and one line where a server cannot be started, 128 + the signal where one comes before all serve.

    Signals are handled, never blocked: a server would inherit that, and not hear its own.
    """
    parser = argparse.ArgumentParser(prog="python -m processor.embedded", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="made where there is none")
    servers, news = Stack(parser.parse_args().folder), News()
    others = children()  # of the shell that has become this program: not ours to end
    starting = Thread(target=_start, args=(servers, news), daemon=True)
    starting.start()
    try:
        code = _serve(servers, news, starting)
    finally:
        ended = cut_off(starting, GIVE_UP_AFTER_S, others)
        servers.stop()
    if not ended:
        os._exit(code)  # a download cannot be interrupted, and would be waited for
    return code


def _start(servers: Stack, news: News) -> None:
    try:
        servers.start()
    except Exception as error:  # whoever waits for the news raises it
        news.failed = error
    finally:
        news.start_ended()


def _serve(servers: Stack, news: News, starting: Thread) -> int:
    """Until a signal comes; the exit code."""
    if number := news.wait():
        return 128 + number
    if isinstance(news.failed, StartRefused):
        print(f"processor.embedded: {news.failed}", file=sys.stderr)
        return 2
    if news.failed:
        raise news.failed
    starting.join()
    for variable, url in servers.environment().items():
        print(f"export {variable}={shlex.quote(url)}", flush=True)
    news.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
