"""All that a screen shows of a run, put together for one look at it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from processor.demo.producing import Counts
from processor.demo.seen import Seen
from processor.demo.steps import Steps

REASON_NAMES = {
    None: "organic",
    "inorganic": "inorganic",
    "inorganic_grouped": "inorganic_grouped",
    "metadata_filter": "metadata_filter",
}


class Address(NamedTuple):
    """Where somebody may look."""

    name: str
    text: str


@dataclass
class Scene:
    """Filled while the run goes on; ``phase`` says what it does just now."""

    seconds: float | None
    steps: Steps
    seen: Seen = field(default_factory=Seen)
    counts: Counts = field(default_factory=Counts)
    addresses: Sequence[Address] = ()
    note: str = ""
    token: str = ""
    """Of the API."""
    curls: Sequence[str] = ()
    """Commands to paste that need nothing else."""
    short_curls: Sequence[str] = ()
    """The same for a narrow screen."""
    phase: str = "starting"
    playing_since: float | None = None
    """Seconds of ``steps``."""

    @property
    def played_s(self) -> float:
        """Seconds of traffic so far."""
        return 0.0 if self.playing_since is None else self.steps.elapsed - self.playing_since
