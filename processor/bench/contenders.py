"""Who takes turns: the floor, the worker in both guarantees with its default settings, and what a caller adds."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum


class Kind(Enum):
    """What a contender promises, and so what is wrong of it."""

    FLOOR = "floor"
    """Each event once in Postgres and at least once in the topic; no verdicts."""
    OWN = "own"
    """The processor: each event has one row and one message, with its verdict."""
    RIVAL = "rival"
    """As the processor, but a message that comes twice may be published twice: its first verdict counts."""


@dataclass(frozen=True)
class Contender:
    """A program that reads the raw topic until SIGTERM, as the variables of a `Site` say; `STATE_FOLDER` names one that it may fill."""

    name: str
    kind: Kind
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


FLOOR = Contender("floor", Kind.FLOOR, (sys.executable, "-m", "processor.bench.floor"))
EXACTLY_ONCE = Contender("exactly_once", Kind.OWN, (sys.executable, "-m", "processor", "worker"))
AT_LEAST_ONCE = replace(
    EXACTLY_ONCE,
    name="at_least_once",
    environment={"PROCESSING_GUARANTEE": "at_least_once"},
)
OWN = (EXACTLY_ONCE, AT_LEAST_ONCE)
