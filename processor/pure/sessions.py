"""Sessions: organic events of a lead with no more than half an hour between one and the next, by event time.

Sessions of a set of events are those of its parts, joined where they touch: so late events, and merges of leads, need nothing else.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

GAP_MS = 30 * 60_000
"""A longer time without an event ends a session."""


class Session(Struct, frozen=True):
    """From its first to its last event, ms."""

    start: int
    end: int
    events: int


def joined(sessions: Iterable[Session]) -> Sequence[Session]:
    """The sessions of all their events, in order of time."""
    found: list[Session] = []
    for one in sorted(sessions, key=lambda session: session.start):
        last = found[-1] if found else None
        if last is not None and one.start - last.end <= GAP_MS:
            events = last.events + one.events
            found[-1] = Session(last.start, max(last.end, one.end), events)
        else:
            found.append(one)
    return found
