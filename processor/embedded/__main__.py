"""``python -m processor.embedded FOLDER``: the three servers for as long as it runs, on the data of FOLDER.

Prints the environment of a processor as shell lines once all of them serve; ends with Ctrl-C, SIGTERM or its terminal.
"""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

from processor.embedded import Stack
from processor.embedded.processes import children, cut_off, endings
from processor.failures import StartRefused

GIVE_UP_AFTER_S = 2.0
News: TypeAlias = SimpleQueue[int | Exception | None]
"""Signals, and how the start ended; whatever a handler interrupts, it may put something there."""


def main() -> int:
    """Exit code 2 and one line where a server cannot be started, 128 + the signal where one comes before all serve.

    Signals are handled, never blocked: a server would inherit that, and not hear its own.
    """
    parser = argparse.ArgumentParser(prog="python -m processor.embedded", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="made where there is none")
    servers, news = Stack(parser.parse_args().folder), News()
    others = children()  # of the shell that has become this program: not ours to end
    for ending in endings():
        signal.signal(ending, lambda number, _: news.put(number))
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
        news.put(error)
    else:
        news.put(None)


def _serve(servers: Stack, news: News, starting: Thread) -> int:
    """Until a signal comes; the exit code."""
    match news.get():
        case None:
            starting.join()
            for variable, url in servers.environment().items():
                print(f"export {variable}={shlex.quote(url)}", flush=True)
            news.get()
            return 0
        case StartRefused() as error:
            print(f"processor.embedded: {error}", file=sys.stderr)
            return 2
        case Exception() as error:
            raise error
        case number:
            return 128 + number


if __name__ == "__main__":
    sys.exit(main())
