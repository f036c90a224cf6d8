"""What verdicts must be, event by event in the order they were committed: nothing is forgotten, everything is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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

    def add(self, event_id: str, at: int) -> Judged:
        """What this filter says of one more event."""
        velocity, width = self.velocity, self.velocity.window_ms
        self.times.append(at)
        count = sum(at - width < t <= at for t in self.times)
        if count <= velocity.threshold:
            return Judged(None)
        near = frozenset(b for t, bursts in self.exceeding if abs(t - at) < width for b in bursts)
        self.exceeding.append((at, near or frozenset({event_id})))
        if not velocity.keep_first:
            return Judged("inorganic", velocity.id, count)
        return Judged("inorganic_grouped" if near else None, velocity.id, count, near)


class Truth:
    """`judged` holds the verdict of each event by id."""

    def __init__(self, order: str) -> None:
        self.judged: dict[str, Judged] = {}
        self._order = order
        self._past: dict[str, list[tuple[str, int]]] = {}
        self._folds: dict[tuple[str, int], Fold] = {}

    def judge(self, event: Event, lead_id: str, rules: Rules) -> None:
        """One more event of a surviving lead, under the rules in force."""
        org = rules.org_units.get(event.org_unit, OrgRules({}, {}))
        matched = [a for a in org.attributes.get("", ()) if a.matches(event.metadata)]
        said: list[Judged] = []
        if not matched or self._order == "velocity,metadata":
            watching = [self._fold(lead_id, v) for v in org.velocity.get(event.event_type, ())]
            said += [fold.add(event.id, event.occurred_at) for fold in watching]
            self._past.setdefault(lead_id, []).append((event.id, event.occurred_at))
        said += [Judged("metadata_filter", a.id) for a in matched]
        self.judged[event.id] = strongest(said)

    def merge(self, target: str, source: str, rules: Rules) -> None:
        """Every window of the target has what those of the source have."""
        for velocity in (
            v for org in rules.org_units.values() for vs in org.velocity.values() for v in vs
        ):
            into, out = self._fold(target, velocity), self._fold(source, velocity)
            into.times += out.times
            into.exceeding += out.exceeding
        self._past[target] = self._past.get(target, []) + self._past.pop(source, [])

    def _fold(self, lead_id: str, velocity: VelocityFilter) -> Fold:
        """A filter that is new has always been there."""
        key = lead_id, velocity.revision
        if key not in self._folds:
            self._folds[key] = fold = Fold(velocity)
            for event_id, at in self._past.get(lead_id, []):
                fold.add(event_id, at)
        return self._folds[key]


def strongest(said: Sequence[Judged]) -> Judged:
    """The reason that wins, of the filter with the smallest id that gave it."""
    for reason in ("inorganic", "inorganic_grouped", "metadata_filter"):
        for judged in said:
            if judged.reason == reason:
                return judged
    return Judged(None)
