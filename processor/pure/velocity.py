"""The fold: what the committed past and the earlier events of a batch say about each of its events.

All counting of the product happens here, in the order of the batch, on what was read before it: members that Redis or Postgres
already hold are in the counts of `Seen`; earlier members of the batch that were not seen there are added.  Nothing is remembered
between batches.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from processor.pure.types import Case, Facts, Json, Reason, Ruling, Seen, VelocityFilter

EventKey: TypeAlias = tuple[str, str]
"""Org unit and event id."""
_VELOCITY_REASONS: tuple[Reason, ...] = ("inorganic", "inorganic_grouped")


class _Opinion(Struct, frozen=True):
    """What one filter says of an event that exceeds its threshold; no reason: the first of a burst, which scores."""

    velocity: VelocityFilter
    reason: Reason | None
    count: int
    burst_id: str | None


class _Window:
    """The earlier members of this batch in one window."""

    __slots__ = ("exceeding", "uncached", "unstored")

    def __init__(self) -> None:
        self.uncached: list[int] = []  # those that Redis did not hold when it was read, ascending
        self.unstored: list[
            int
        ] = []  # those that Postgres did not hold when it was read, ascending
        self.exceeding: list[tuple[int, str]] = []  # (time, burst id), ascending

    def count(self, until: int, window_ms: int, seen: Seen) -> int:
        """Distinct members in (until − window, until]; what was not seen where the event is judged from is added."""
        times = self.unstored if seen.from_store else self.uncached
        if not times:
            return seen.count
        return seen.count + bisect_right(times, until) - bisect_right(times, until - window_ms)

    def add(self, at: int, seen: Seen) -> None:
        if not seen.cached:
            insort(self.uncached, at)
        if not seen.stored:
            insort(self.unstored, at)

    def burst_near(self, at: int, window_ms: int) -> str | None:
        """The burst of an exceeding event less than a window away, on either side."""
        n = bisect_left(self.exceeding, (at - window_ms + 1, ""))
        if n < len(self.exceeding) and self.exceeding[n][0] < at + window_ms:
            return self.exceeding[n][1]
        return None


def decide(
    cases: Sequence[Case],
    seen: Sequence[Sequence[Seen]],
    known: Mapping[EventKey, Facts],
    rules: int,
) -> list[Ruling]:
    """Rulings on events of one lane in processing order.

    `seen[i]` answers `cases[i].watching`, filter by filter.  `known` holds the facts of events whose first row is committed and
    says other than this fold did: they are what the windows get, whatever is computed.  Ids are distinct.
    """
    windows: dict[tuple[str, str, int], _Window] = {}
    plain = Facts(counted=True, rules=rules, exceeded={})
    return [
        Ruling(case, None, None, plain)
        if _is_plain(case, answers) and not known
        else _rule(case, answers, windows, known, rules)
        for case, answers in zip(cases, seen, strict=True)
    ]


def _is_plain(case: Case, answers: Sequence[Seen]) -> bool:
    """No filter can have anything to say of it, which is so for most events."""
    if case.matched is not None or not case.counted or len(answers) != len(case.watching):
        return False
    for answer in answers:  # noqa: SIM110  # all() takes a generator, for every event
        if not answer.calm:
            return False
    return True


def _rule(
    case: Case,
    answers: Sequence[Seen],
    windows: dict[tuple[str, str, int], _Window],
    known: Mapping[EventKey, Facts],
    rules: int,
) -> Ruling:
    event = case.event
    stored = known.get((event.org_unit, event.id)) if known else None
    exceeded: dict[int, str] = {}
    opinions: list[_Opinion] = []
    for velocity, answer in zip(case.watching, answers, strict=True):
        if answer.calm:
            continue
        key = (event.org_unit, case.root.lead_id, velocity.revision)
        window = windows.get(key)
        if window is None:
            window = windows[key] = _Window()
        opinion = _judge(case, velocity, answer, window)
        window.add(event.occurred_at, answer)
        if opinion is not None:
            opinions.append(opinion)
        burst = (
            _burst(event.id, velocity, opinion)
            if stored is None
            else stored.exceeded.get(velocity.revision)
        )
        if burst is not None:
            exceeded[velocity.revision] = burst
            insort(window.exceeding, (event.occurred_at, burst))
    reason, suppressed_by = _verdict(case, opinions)
    facts = stored or Facts(counted=case.counted, rules=rules, exceeded=exceeded)
    return Ruling(case=case, reason=reason, suppressed_by=suppressed_by, facts=facts)


def _judge(case: Case, velocity: VelocityFilter, seen: Seen, window: _Window) -> _Opinion | None:
    """What one filter says of an event that exceeds its threshold; None below it."""
    at = case.event.occurred_at
    held = seen.stored if seen.from_store else seen.cached
    count = window.count(at, velocity.window_ms, seen) + (not held)
    if count <= velocity.threshold:
        return None
    if not velocity.keep_first:
        return _Opinion(velocity, "inorganic", count, None)
    burst = seen.burst_id or window.burst_near(at, velocity.window_ms)
    return _Opinion(velocity, None if burst is None else "inorganic_grouped", count, burst)


def _burst(event_id: str, velocity: VelocityFilter, opinion: _Opinion | None) -> str | None:
    """The burst an exceeding event belongs to: one nearby, or the one it begins."""
    if opinion is None or not velocity.keep_first:
        return None
    return opinion.burst_id or event_id


def _verdict(
    case: Case, opinions: Sequence[_Opinion]
) -> tuple[Reason | None, Mapping[str, Json] | None]:
    """The reason that wins and what is recorded of it: opinions come ascending by filter id, so the first of a reason is it."""
    for reason in _VELOCITY_REASONS:
        for opinion in opinions:
            if opinion.reason == reason:
                return reason, _velocity_provenance(opinion)
    if case.matched is not None:
        matched = case.matched
        return "metadata_filter", {
            "filter_id": matched.id,
            "filter_version": matched.version,
            "filter_name": matched.name,
        }
    return None, None


def _velocity_provenance(opinion: _Opinion) -> Mapping[str, Json]:
    velocity = opinion.velocity
    provenance: dict[str, Json] = {
        "filter_id": velocity.id,
        "filter_version": velocity.version,
        "filter_name": velocity.name,
        "count": opinion.count,
        "threshold": velocity.threshold,
        "window_ms": velocity.window_ms,
    }
    if opinion.burst_id is not None:
        provenance["burst_id"] = opinion.burst_id
    return provenance
