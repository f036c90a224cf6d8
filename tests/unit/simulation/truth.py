"""What verdicts must be, event by event in the order they were committed: nothing is forgotten, everything is looked at."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from processor.pure.types import Event, OrgRules, Rules, VelocityFilter


@dataclass(frozen=True)
class Judged:
    """A verdict and what may be recorded of it."""

    reason: str | None
    filter_id: str | None = None
    count: int | None = None
    bursts: frozenset[str] = frozenset()


@dataclass
class Fold:
    """One filter and one lead: times of all members, and the exceeding events with the bursts they may belong to."""

    velocity: VelocityFilter
    times: list[int] = field(default_factory=list)
    exceeding: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    last: frozenset[str] | None = None
    """The bursts that the last event may belong to; None where it did not exceed."""

    def add(self, event_id: str, at: int) -> Judged:
        """What this filter says of one more event."""
        velocity, width = self.velocity, self.velocity.window_ms
        self.times.append(at)
        count = sum(at - width < t <= at for t in self.times)
        self.last = None
        if count <= velocity.threshold:
            return Judged(None)
        near = frozenset(b for t, bursts in self.exceeding if abs(t - at) < width for b in bursts)
        self.last = near or frozenset({event_id})
        self.exceeding.append((at, self.last))
        if not velocity.keep_first:
            return Judged("inorganic", velocity.id, count)
        return Judged("inorganic_grouped" if near else None, velocity.id, count, near)

    def recall(self, at: int, bursts: frozenset[str] | None) -> None:
        """An event of the past, and the bursts it may belong to; None where it did not exceed."""
        self.times.append(at)
        if bursts is not None:
            self.exceeding.append((at, bursts))


@dataclass(frozen=True)
class Member:
    """A counted event of the past, with what was true of it when it was judged."""

    number: int
    event_id: str
    at: int
    lead: str
    """The one that was named."""
    together: frozenset[str]
    """Who was one with it."""
    rules: int
    exceeding: Mapping[int, frozenset[str]]
    """By filter revision: the bursts it may belong to."""


class Truth:
    """`judged` holds the verdict of each event by id."""

    def __init__(self, order: str) -> None:
        self.judged: dict[str, Judged] = {}
        self._order = order
        self._classes: dict[str, Collection[str]] = {}
        self._past: dict[str, list[Member]] = {}
        """By the lead that was named."""
        self._folds: dict[tuple[str, int], Fold] = {}
        self._older: dict[int, Mapping[int, frozenset[str]]] = {}
        """By filter revision."""

    def judge(self, event: Event, lead_id: str, rules: Rules) -> None:
        """One more event of a surviving lead, under the rules in force."""
        org = rules.org_units.get(event.org_unit, OrgRules({}, {}))
        matched = [a for a in org.attributes.get("", ()) if a.matches(event.metadata)]
        said: list[Judged] = []
        if not matched or self._order == "velocity,metadata":
            watching = [self._fold(lead_id, v) for v in org.velocity.get(event.event_type, ())]
            said += [fold.add(event.id, event.occurred_at) for fold in watching]
            exceeding = {f.velocity.revision: f.last for f in watching if f.last is not None}
            past = self._past.setdefault(event.lead_id, [])
            who = event.lead_id, self._together(lead_id)
            what = event.id, event.occurred_at, *who, rules.revision, exceeding
            past.append(Member(len(self.judged), *what))
        said += [Judged("metadata_filter", a.id) for a in matched]
        self.judged[event.id] = strongest(said)

    def regroup(self, classes: Mapping[str, Collection[str]]) -> None:
        """The leads that these roots stand for now; their windows are made anew."""
        self._classes |= classes
        for key in [key for key in self._folds if key[0] in classes]:
            del self._folds[key]

    def _fold(self, lead_id: str, velocity: VelocityFilter) -> Fold:
        """What was judged with the filter stays as it was judged; of what is older it is as if it had always been there."""
        key = lead_id, velocity.revision
        if key not in self._folds:
            self._folds[key] = fold = Fold(velocity)
            older = self._bursts_older(velocity)
            for member in self._members(self._together(lead_id)):
                if member.rules < velocity.revision:
                    fold.recall(member.at, older.get(member.number))
                else:
                    fold.recall(member.at, member.exceeding.get(velocity.revision))
        return self._folds[key]

    def _bursts_older(self, velocity: VelocityFilter) -> Mapping[int, frozenset[str]]:
        """By the numbers of what is older than a filter the bursts it may belong to: each judged among those who were one with it."""
        if velocity.revision not in self._older:
            bursts: dict[int, frozenset[str]] = {}
            older = [m for m in self._members(self._past) if m.rules < velocity.revision]
            for n, member in enumerate(older):
                fold = Fold(velocity)
                for other in older[:n]:
                    if other.lead in member.together:
                        fold.recall(other.at, bursts.get(other.number))
                fold.add(member.event_id, member.at)
                if fold.last is not None:
                    bursts[member.number] = fold.last
            self._older[velocity.revision] = bursts
        return self._older[velocity.revision]

    def _together(self, lead_id: str) -> frozenset[str]:
        return frozenset({lead_id, *self._classes.get(lead_id, ())})

    def _members(self, leads: Iterable[str]) -> list[Member]:
        """In the order they were committed."""
        found = [member for lead in leads for member in self._past.get(lead, ())]
        return sorted(found, key=lambda member: member.number)


def strongest(said: Sequence[Judged]) -> Judged:
    """The reason that wins, of the filter with the smallest id that gave it."""
    for reason in ("inorganic", "inorganic_grouped", "metadata_filter"):
        for judged in said:
            if judged.reason == reason:
                return judged
    return Judged(None)


def verdict_problems(
    event_id: str, judged: Judged, reason: str | None, suppressed_by: Mapping[str, Any] | None
) -> list[object]:
    """How a stored verdict differs from the truth."""
    by = suppressed_by or {}
    if reason != judged.reason or by.get("filter_id") != judged.filter_id:
        return [(event_id, judged, reason, by)]
    if judged.count is not None and not by["threshold"] < by["count"] <= judged.count:
        return [(event_id, judged, by)]
    if judged.bursts and by.get("burst_id") not in judged.bursts:
        return [(event_id, judged, by)]
    return []
