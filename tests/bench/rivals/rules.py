"""What is not organic, for programs that read no filters of the processor."""

import json
from pathlib import Path

from processor.bench.traffic import CONDITIONS, VELOCITY

LATENESS_MS = 60_000
"""How long after its window an event is kept; events come at most half as late."""


def rules(folder: Path) -> Path:
    """A file that says it."""
    told = {
        "lateness_ms": LATENESS_MS,
        "velocity": [
            {"event_type": name, "threshold": threshold, "window_ms": window_ms}
            for name, (threshold, window_ms) in VELOCITY.items()
        ],
        "conditions": [
            {"key": key, "operator": operator, "value": value}
            for key, operator, value in CONDITIONS
        ],
    }
    path = folder / "rules.json"
    path.write_text(json.dumps(told))
    return path
