"""The demo's screen shows whatever a producer may say, and obeys none of it."""

import io
from typing import Any

import pytest
from rich.console import Console

from processor.demo.scene import Scene
from processor.demo.screen import draw
from processor.demo.seen import Dead, Seen
from processor.demo.steps import Steps
from processor.demo.watching import see_event

EVENT = {
    "lead_id": "lead-1",
    "event_type": "Page View",
    "metadata": {},
    "suppression_reason": "inorganic",
    "suppressed_by": {"filter_name": "storm", "count": 4, "threshold": 3},
    "received_at": "2026-09-21T14:13:20.412Z",
}
MERGE = {"source_lead_ids": ["b", "c"], "events_moved": 3}


def _seen(*events: dict[str, Any]) -> Seen:
    seen = Seen()
    for event in events:
        see_event(seen, EVENT | event, 1.0, 0.1)
    return seen


def _drawn(seen: Seen) -> str:
    scene = Scene(None, Steps(0.0), seen=seen, playing_since=0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=30)
    with console.capture() as text:
        console.print(draw(scene, 1.0, 30))
    return text.get()


@pytest.mark.parametrize(
    ("said", "read"),
    [("[/x]", "[/x]"), ("[bold]x", "[bold]x"), ("\x1b]0;owned\x07", r"\x1b]0;owned\x07")],
)
def test_what_a_producer_says_is_read_as_it_is_and_a_terminal_obeys_nothing_of_it(
    said: str, read: str
) -> None:
    """Leads, types, names and reasons alike; no markup, no control character."""
    by = EVENT["suppressed_by"] | {"filter_name": said}  # type: ignore[operator]
    seen = _seen({"lead_id": said, "event_type": said, "suppressed_by": by})
    merged = {
        "event_type": "Lead Merged",
        "lead_id": said,
        "metadata": MERGE | {"source_lead_ids": [said]},
    }
    see_event(seen, EVENT | merged, 1.0, 0.1)
    seen.dead.append(Dead("parse", "x", said))
    drawn = _drawn(seen)
    assert drawn.count(read) >= 6
    assert "\x1b]" not in drawn


def test_a_merge_is_shown_with_who_was_merged_and_what_moved() -> None:
    """As its event tells it."""
    seen = _seen({"event_type": "Lead Merged", "metadata": MERGE})
    assert seen.merges == 1
    assert "b, c" in _drawn(seen)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"source_lead_ids": 5, "events_moved": 1},
        {"source_lead_ids": ["b"], "events_moved": "x"},
    ],
)
def test_an_event_that_only_has_the_type_of_a_merge_is_an_event_like_any_other(
    metadata: dict[str, Any],
) -> None:
    """Any producer may send one."""
    seen = _seen({"event_type": "Lead Merged", "metadata": metadata})
    assert (seen.events, seen.merges, len(seen.merged)) == (1, 0, 0)
