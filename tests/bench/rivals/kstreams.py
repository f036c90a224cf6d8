"""Kafka Streams, of the broker's version, on the JRE that runs the broker.

A JRE has no compiler, so Eclipse's, which is a jar, compiles `kstreams/*.java` before the first run: no JDK is needed, and the classes
are the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from processor.bench.contenders import Contender, Kind
from processor.embedded.jars import KAFKA_VERSION, Jars
from processor.embedded.processes import run
from processor.embedded.recipes import java
from tests.bench.rivals.rules import rules

_SOURCES = Path(__file__).with_name("kstreams")
JARS = Jars(
    "kstreams",
    Path(__file__).with_name("kstreams.lock"),
    "+".join(
        [
            f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}",  # brings RocksDB and Jackson
            "org.postgresql:postgresql:42.7.14",
            "org.slf4j:slf4j-simple:1.7.36",
            "org.eclipse.jdt:ecj:3.46.100",
        ]
    ),
)
_FLAGS = (
    "-Xmx1500m",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def contenders(folder: Path) -> Sequence[Contender]:
    """Both guarantees; the classes and rules go into `folder`.  Raises `StartRefused`."""
    classpath, classes = JARS.classpath(), folder / "classes"
    run([java(), "-cp", classpath, *_compiler(classes)])
    exactly_once = Contender(
        "kstreams_exactly_once",
        Kind.RIVAL,
        (java(), *_FLAGS, "-cp", f"{classes}:{classpath}", "Job"),
        {
            "RULES": str(rules(folder)),
            "GUARANTEE": "exactly_once_v2",
            "COMMIT_MS": "100",
            "LINGER_MS": "50",
        },
    )
    more = {"GUARANTEE": "at_least_once", "COMMIT_MS": "500"}
    at_least_once = replace(
        exactly_once,
        name="kstreams_at_least_once",
        environment={**exactly_once.environment, **more},
    )
    return exactly_once, at_least_once


def quick(contender: Contender) -> Contender:
    """As it is tuned for latency."""
    return replace(contender, environment={**contender.environment, "LINGER_MS": "5"})


def _compiler(classes: Path) -> Sequence[str]:
    main = "org.eclipse.jdt.internal.compiler.batch.Main"
    jars = ":".join(map(str, JARS.folder.glob("*.jar")))  # it knows no wildcard
    return main, "-25", "-nowarn", "-cp", jars, "-d", str(classes), str(_SOURCES)
