"""Ways to get it wrong: each leaves out one rule of the decision path, in a fake or in a patched copy of the program."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from processor import pipeline
from processor.ports import Answer, EventKey, Fact, KnownIds
from processor.pure import velocity
from processor.pure.types import Case, Facts, Root, Ruling, VelocityFilter
from tests.fakes import NEVER, FakeEvents, Row, WindowKey
from tests.fakes_windows import FakeWindows, Window
from tests.unit.simulation import Parts


class WriteCreates(FakeWindows):
    """What a write finds missing looks whole afterwards."""

    def _to_write(self, case: Case, velocity: VelocityFilter) -> Window:
        key = case.event.org_unit, case.root.lead_id, case.root.epoch, velocity.revision
        return self._held.setdefault(key, Window(NEVER))


class TrustAll(FakeWindows):
    """What is absent is taken to be empty."""

    def _trusted(self, velocity: VelocityFilter) -> int:
        return NEVER


class TrustOldFilters(FakeWindows):
    """Windows of a new filter are taken to have been there."""

    def _trusted(self, velocity: VelocityFilter) -> int:
        return super()._trusted(replace_newest(velocity))


def replace_newest(velocity: VelocityFilter) -> VelocityFilter:
    """The filter as if nothing had been stored before it."""
    return velocity.__replace__(newest=None)


class NoFloor(FakeWindows):
    """Windows are asked for what they no longer hold."""

    def _bound(self, window: Window, velocity: VelocityFilter, at: int = NEVER) -> None:
        super()._bound(window, velocity, at)
        window.floor = NEVER


class NoPast(FakeWindows):
    """A new keep-first filter knows no burst of the past."""

    def _whole(self, key: WindowKey, velocity: VelocityFilter) -> Window:
        window = super()._whole(key, velocity)
        stored = self._database.members(key, velocity.event_type)
        own = {row.event.id for row in stored if velocity.revision in row.ruling.facts.exceeded}
        window.exceeding = {i: x for i, x in window.exceeding.items() if i in own}
        return window


class OneEpoch(FakeWindows):
    """Windows go on over a merge."""

    def _window(self, case: Case, velocity: VelocityFilter) -> Window:
        root = Root(case.root.lead_id, 0)
        unmerged = Case(case.event, root, case.matched, case.counted, case.watching)
        return super()._window(unmerged, velocity)


class NoDeduplication(FakeWindows):
    """A fact written again counts again."""

    async def write(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            event = fact.case.event
            for watching in fact.case.watching:
                members = self._window(fact.case, watching).members
                if event.id in members:
                    members[f"{event.id} {len(members)}"] = event.occurred_at
        await super().write(facts)


class Recomputed(FakeEvents):
    """Facts are those computed now, not those stored."""

    def _refused(self, new: Sequence[Row], rows: Sequence[Row | None]) -> KnownIds | None:
        refused = super()._refused(new, rows)
        if refused is None or not refused.others:
            return None
        return KnownIds(refused.others, {})


class OtherBodiesCount(FakeEvents):
    """A duplicate with another body is taken for a redelivery."""

    def _refused(self, new: Sequence[Row], rows: Sequence[Row | None]) -> KnownIds | None:
        refused = super()._refused(new, rows)
        if refused is None or not refused.facts:
            return None
        return KnownIds(frozenset(), refused.facts)


class LastRowWins(FakeEvents):
    """A redelivered message is judged anew."""

    def _first(self, row: Row) -> Row | None:
        return None

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        for ruling in rulings:
            key: EventKey = ruling.case.event.org_unit, ruling.case.event.id
            old = self._database.rows.get(key)
            if old is not None:
                body = old.body == Row(ruling, 0).body
                facts: Mapping[int, str] = ruling.facts.exceeded if body else {}
                again = Facts(ruling.facts.counted, ruling.facts.rules, facts)
                settled = Ruling(ruling.case, ruling.reason, ruling.suppressed_by, again)
                self._database.rows[key] = Row(settled, old.received_at)
        return await super().record(rulings, rules)


class StaleRulesCommit(FakeEvents):
    """A batch is stored by the rules it was judged by, whatever is in force."""

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        return await super().record(rulings, self._database.rules.revision)


class StaleRootsCommit(FakeEvents):
    """A batch is stored under the leads it was judged for."""

    def _stale(self, cases: Any) -> dict[Any, Any]:
        return {}


def patched(module: ModuleType, *changes: tuple[str, str], **names: object) -> dict[str, Any]:
    """What a copy of a module defines, with some of its text changed and some names given."""
    source = Path(str(module.__file__)).read_text()
    for old, new in changes:
        assert source.count(old) == 1, (module.__name__, old, source.count(old))
        source = source.replace(old, new)
    copy = ModuleType(f"{module.__name__}_patched")
    sys.modules[copy.__name__] = copy  # classes look themselves up there
    exec(compile(source, str(module.__file__), "exec"), copy.__dict__)
    return {**copy.__dict__, **names}


def pipeline_with(*changes: tuple[str, str]) -> Callable[..., Any]:
    """A pipeline with some of its text changed."""
    made: Callable[..., Any] = patched(pipeline, *changes)["Pipeline"]
    return made


def deciding(*changes: tuple[str, str]) -> Callable[..., Any]:
    """A pipeline that decides by a changed fold."""
    decide = patched(velocity, *changes)["decide"]
    copy = patched(pipeline)
    made: Callable[..., Any] = copy["Pipeline"]
    sys.modules[made.__module__].decide = decide  # type: ignore[attr-defined]
    return made


AS_IT_IS = Parts()
MUTANTS: Mapping[str, Callable[[], Parts]] = {
    "write creates windows": lambda: replace(AS_IT_IS, windows=WriteCreates),
    "absent windows are empty": lambda: replace(AS_IT_IS, windows=TrustAll),
    "windows of new filters are empty": lambda: replace(AS_IT_IS, windows=TrustOldFilters),
    "the floor is ignored": lambda: replace(AS_IT_IS, windows=NoFloor),
    "new filters have no past": lambda: replace(AS_IT_IS, windows=NoPast),
    "windows go on over a merge": lambda: replace(AS_IT_IS, windows=OneEpoch),
    "facts are recomputed": lambda: replace(AS_IT_IS, events=Recomputed),
    "another body leaves a trace": lambda: replace(AS_IT_IS, events=OtherBodiesCount),
    "the last row wins": lambda: replace(AS_IT_IS, events=LastRowWins),
    "stale rules commit": lambda: replace(AS_IT_IS, events=StaleRulesCommit),
    "stale roots commit": lambda: replace(AS_IT_IS, events=StaleRootsCommit),
    "facts before the commit": lambda: replace(AS_IT_IS, writes_first=True),
    "no deduplication": lambda: replace(AS_IT_IS, windows=NoDeduplication),
    "a batch counts duplicates": lambda: replace(
        AS_IT_IS,
        pipeline=pipeline_with(
            ("self._recorded(list(firsts.values()))", "self._recorded(list(events))")
        ),
    ),
    "at least the threshold": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(("if count <= velocity.threshold", "if count < velocity.threshold")),
    ),
    "closed left edge": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(
            ("bisect_right(times, until - window_ms)", "bisect_left(times, until - window_ms)")
        ),
    ),
    "burst state per batch": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(
            ("seen.burst_id or window.burst_near", "window.burst_near"),
        ),
    ),
    "a batch forgets its bursts": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(
            ("seen.burst_id or window.burst_near(at, velocity.window_ms)", "seen.burst_id"),
        ),
    ),
    "a batch forgets its members": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(("        window.add(event.occurred_at, answer)\n", "")),
    ),
    "bursts reach back only": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(("self.exceeding[n][0] < at + window_ms", "self.exceeding[n][0] <= at")),
    ),
    "one place stands for the other": lambda: replace(
        AS_IT_IS,
        pipeline=deciding(("self.unstored if seen.from_store else self.uncached", "self.uncached")),
    ),
    "known facts are forgotten": lambda: replace(
        AS_IT_IS,
        pipeline=pipeline_with(("doubts.known |= facts", "doubts.known = dict(facts)")),
    ),
    "what is computed is published": lambda: replace(
        AS_IT_IS,
        pipeline=pipeline_with(("stored = recorded.known.get(n)\n", "stored = None\n")),
    ),
    "duplicates are published": lambda: replace(
        AS_IT_IS,
        pipeline=pipeline_with(
            ("if stored.deleted or not stored.same_message", "if stored.deleted")
        ),
    ),
}
