"""The life of a lane: one assigned partition, from its assignment to its end, as values.

::

    waiting ── begin ──▶ starting ── position ──▶ ready ── take ──▶ processing ── publish ──▶ publishing
       ▲                    │                       ▲                   │                         │
       │                    │                       └──────────────── commit ─────────────────────┤
       └────── fail ────────┴───────────────────────────────────────────┴─────────────────────────┘
    any ── stop ──▶ stopped ── resume ──▶ waiting        any ── fence ──▶ fenced        any ── close ──▶ closed

It promises: nothing is published but the batch that was taken, batches are taken in order from the
committed offset on and none is left out, and a lane that was fenced or closed never begins again.
A move that would break this raises `IllegalMoveError`: a defect of the caller, never of the input.
"""

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

Phase: TypeAlias = Literal[
    "waiting", "starting", "ready", "processing", "publishing", "stopped", "fenced", "closed"
]

_ENDED = frozenset({"fenced", "closed"})
_IN_FLIGHT = frozenset({"processing", "publishing"})
_CONSUMING = _IN_FLIGHT | {"ready"}


class IllegalMoveError(Exception):
    """A move that the phase of the lane does not allow."""


class Bounds(Struct, frozen=True):
    """What the cluster says about a partition."""

    committed: int | None
    """The group's offset; None where it has none."""
    start: int
    """The first offset the topic still holds."""
    end: int
    """The offset after the last one that can be read."""
    topic: bytes = b""
    """The topic's identity, and that of its name."""
    by_lane: bool = False
    """A lane committed the group's offset, and nobody has put the group there on purpose."""
    stale: bool = False
    """The group's offset is of a topic that is gone; as good as none, it is to be replaced before all else."""
    published: int | None = None
    """Below it lanes have published everything, as is known from elsewhere; None where nothing is known."""


class Lane(Struct, frozen=True):
    """Where a lane stands."""

    phase: Phase = "waiting"
    offset: int = 0
    """Everything below is committed; meaningful from ``ready`` on."""
    upto: int = 0
    """The end of the batch in flight, exclusive."""
    closing: bool = False
    """The batch in flight is the last one."""
    outside: bool = False
    """Stopped because its offset is not in the log."""


def begin(lane: Lane, *, owned: bool) -> Lane:
    """Before a producer starts; a partition that is no longer ours closes the lane instead.

    A producer started for a revoked partition would fence its rightful owner.
    """
    if lane.phase in _ENDED:
        return lane
    _expect(lane, "waiting")
    return replace(lane, phase="starting") if owned else close(lane)


def position(lane: Lane, bounds: Bounds) -> Lane:
    """The producer has fenced its predecessors; only now is the committed offset final.

    Where the coordinator has forgotten the newest offset, or all of them, the lane begins where lanes are known to have come; where
    there was none, at the first one.  Outside the bounds it stops.
    """
    if lane.phase in _ENDED:
        return lane
    _expect(lane, "starting")
    offset = begins_at(bounds)
    inside = bounds.start <= offset <= bounds.end
    phase: Phase = "ready" if inside else "stopped"
    return replace(lane, phase=phase, offset=offset, upto=offset, outside=not inside)


def take(lane: Lane, first: int, upto: int) -> Lane:
    """A batch of records with offsets from `first` to before `upto` goes in flight."""
    _expect(lane, "ready")
    if not lane.offset <= first < upto:
        raise IllegalMoveError(f"batch {first}..{upto} does not follow offset {lane.offset}")
    return replace(lane, phase="processing", upto=upto)


def publish(lane: Lane, next_offset: int) -> Lane:
    """The batch is processed, `next_offset` is what its outcome wants to commit."""
    _expect(lane, "processing")
    if next_offset != lane.upto:
        raise IllegalMoveError(f"the outcome ends at {next_offset}, the batch at {lane.upto}")
    return replace(lane, phase="publishing")


def commit(lane: Lane) -> Lane:
    """Outputs and offset are written."""
    _expect(lane, "publishing")
    return replace(lane, phase="closed" if lane.closing else "ready", offset=lane.upto)


def fail(lane: Lane) -> Lane:
    """A step on Kafka failed: its producer is worth nothing, the lane begins again from the committed offset."""
    if lane.phase in _ENDED:
        return lane
    return replace(lane, phase="closed" if lane.closing else "waiting")


def stop(lane: Lane) -> Lane:
    """Going on would lose or guess: the lane waits for an operator."""
    if lane.phase in _ENDED:
        return lane
    return replace(lane, phase="closed" if lane.closing else "stopped")


def resume(lane: Lane, bounds: Bounds) -> Lane:
    """A stopped lane begins again when its offset was moved, or is in the log again."""
    if lane.phase in _ENDED:
        return lane
    _expect(lane, "stopped")
    offset = begins_at(bounds)
    mended = lane.outside and bounds.start <= offset <= bounds.end
    return replace(lane, phase="waiting") if mended or offset != lane.offset else lane


def fence(lane: Lane) -> Lane:
    """A newer owner exists: for good."""
    return lane if lane.phase in _ENDED else replace(lane, phase="fenced")


def close(lane: Lane) -> Lane:
    """Revoked, or the worker drains: a batch in flight may finish, nothing else begins."""
    if lane.phase in _ENDED:
        return lane
    if lane.phase in _IN_FLIGHT:
        return replace(lane, closing=True)
    return replace(lane, phase="closed")


def wants_records(lane: Lane) -> bool:
    """Records fetched now will be taken."""
    return lane.phase in _CONSUMING and not lane.closing


def begins_at(bounds: Bounds) -> int:
    """The offset of the first record to process."""
    if bounds.committed is None:
        return bounds.start if bounds.published is None else bounds.published
    if bounds.by_lane and bounds.published is not None:
        return max(bounds.committed, bounds.published)
    return bounds.committed


def _expect(lane: Lane, phase: Phase) -> None:
    if lane.phase != phase:
        raise IllegalMoveError(f"the lane is {lane.phase}, not {phase}")
