"""``python -m processor.embedded FOLDER``: the three servers for as long as it runs, on the data of FOLDER.

Prints the environment of a processor as shell lines once all of them serve; ends with Ctrl-C or SIGTERM.
"""

import argparse
import signal
import sys
from pathlib import Path

from processor.embedded import Stack
from processor.failures import StartRefused


def main() -> int:
    """Exit code 2 and one line where a server cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m processor.embedded", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="made where there is none")
    asked = parser.parse_args()
    numbers = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        with Stack(asked.folder) as servers:
            for variable, url in servers.environment().items():
                print(f"export {variable}={url}", flush=True)
            signal.sigwait(numbers)
    except StartRefused as error:
        print(f"processor.embedded: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
