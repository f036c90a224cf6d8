"""Ways to get it wrong: each leaves out one rule of a lane, a merge or the decisions, in a fake or in a patched copy of the program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processor.io import kafka_sink
from processor.ports import Answer, EventKey, KnownIds, Reading
from processor.pure.types import Case, Facts, MergeCommand, Root, Ruling, VelocityFilter
from tests.fakes import NEVER, FakeEvents, Row, WindowKey
from tests.fakes_windows import FakeWindows, Window, folded
from tests.unit.simulation.patching import (
    deciding,
    group_with,
    lanes_with,
    living_by,
    patched,
    pipeline_with,
)
from tests.unit.simulation.stores import Merges, Move, Mover, Parts


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


class PastOfNow(FakeWindows):
    """What is older than a filter is judged among those who are one now."""

    def _older(self, org_unit: str, velocity: VelocityFilter) -> Mapping[str, str]:
        database = self._database
        older = [event for event, _ in database.older(org_unit, velocity)]
        return folded(
            [(event, database.one_with(org_unit, event.lead_id)) for event in older], velocity
        )


class OneEpoch(FakeWindows):
    """Windows go on over a merge."""

    def _window(self, case: Case, velocity: VelocityFilter) -> Window:
        root = Root(case.root.lead_id, 0)
        unmerged = Case(case.event, root, case.matched, case.counted, case.watching)
        return super()._window(unmerged, velocity)


class NoDeduplication(FakeWindows):
    """A fact written again counts again."""

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        for case in reading.cases:
            event = case.event
            for watching in case.watching:
                members = self._window(case, watching).members
                if event.id in members:
                    members[f"{event.id} {len(members)}"] = event.occurred_at
        await super().write(reading, facts)


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


class MergesWithoutLock(Merges):
    """A merge is recorded as it was decided, whatever was merged in between."""

    def refused(self, version: int) -> bool:
        return False


class MergesAgain(Merges):
    """A message that is delivered again is a merge of its own."""

    def known(self, command: MergeCommand) -> bool:
        return False


class RememberedTarget(Mover):
    """Rows are moved to who was the survivor when the move was asked for."""

    def target(self, move: Move, raw: str) -> str:
        return move.target


MUTANTS: Mapping[str, Callable[[], Parts]] = {
    "write creates windows": lambda: Parts(windows=WriteCreates),
    "absent windows are empty": lambda: Parts(windows=TrustAll),
    "windows of new filters are empty": lambda: Parts(windows=TrustOldFilters),
    "the floor is ignored": lambda: Parts(windows=NoFloor),
    "new filters have no past": lambda: Parts(windows=NoPast),
    "what is older than a filter is judged by who is one now": lambda: Parts(windows=PastOfNow),
    "windows go on over a merge": lambda: Parts(windows=OneEpoch),
    "facts are recomputed": lambda: Parts(events=Recomputed),
    "another body leaves a trace": lambda: Parts(events=OtherBodiesCount),
    "the last row wins": lambda: Parts(events=LastRowWins),
    "stale rules commit": lambda: Parts(events=StaleRulesCommit),
    "stale roots commit": lambda: Parts(events=StaleRootsCommit),
    "facts before the commit": lambda: Parts(writes_first=True),
    "no deduplication": lambda: Parts(windows=NoDeduplication),
    "a batch counts duplicates": lambda: pipeline_with(
        ("self._recorded(list(firsts.values()))", "self._recorded(list(events))")
    ),
    "at least the threshold": lambda: deciding(
        ("if count <= velocity.threshold", "if count < velocity.threshold")
    ),
    "closed left edge": lambda: deciding(
        ("bisect_right(times, until - window_ms)", "bisect_left(times, until - window_ms)")
    ),
    "burst state per batch": lambda: deciding(
        ("seen.burst_id or window.burst_near", "window.burst_near"),
    ),
    "a batch forgets its bursts": lambda: deciding(
        ("seen.burst_id or window.burst_near(at, velocity.window_ms)", "seen.burst_id"),
    ),
    "a batch forgets its members": lambda: deciding(
        ("        window.add(event.occurred_at, answer)\n", "")
    ),
    "bursts reach back only": lambda: deciding(
        ("self.exceeding[n][0] < at + window_ms", "self.exceeding[n][0] <= at")
    ),
    "one place stands for the other": lambda: deciding(
        ("self.unstored if seen.from_store else self.uncached", "self.uncached")
    ),
    "known facts are forgotten": lambda: pipeline_with(
        ("doubts.known |= facts", "doubts.known = dict(facts)")
    ),
    "what is computed is published": lambda: pipeline_with(
        ("stored = recorded.known.get(n)\n", "stored = None\n")
    ),
    "duplicates are published": lambda: pipeline_with(
        ("if stored.deleted or not stored.same_message", "if stored.deleted")
    ),
    "the offset is read before the producer starts": lambda: lanes_with(
        (
            "            await sink.start()\n            await self._position(sink, await self._bounds(sink))\n",
            "            await self._position(sink, await self._bounds(sink))\n            await sink.start()\n",
        )
    ),
    "the offset is committed before the outputs": lambda: Parts(
        transactional=patched(
            kafka_sink,
            (
                "            await self.send(packed)\n            await self.place(outcome.next_offset)\n            await self.commit()\n",
                "            await self.place(outcome.next_offset)\n            await self.commit()\n"
                "            await self.begin()\n            await self.send(packed)\n            await self.commit()\n",
            ),
        ).Transactional
    ),
    "the offset is committed outside of the transaction": lambda: Parts(
        transactional=patched(
            kafka_sink,
            (
                "            await self.place(outcome.next_offset)\n            await self.commit()\n",
                "            await self.commit()\n            await self.begin()\n"
                "            await self.place(outcome.next_offset)\n            await self.commit()\n",
            ),
        ).Transactional
    ),
    "at least once, the offset before the outputs": lambda: Parts(
        idempotent=patched(
            kafka_sink,
            (
                "            await self.send(packed)\n            await self.place(outcome.next_offset)\n        self",
                "            await self.place(outcome.next_offset)\n            await self.send(packed)\n        self",
            ),
        ).Idempotent
    ),
    "no worker fences another": lambda: Parts(own_ids=True),
    "nobody asks whose the partition is": lambda: lanes_with(
        ("owned=self._source.owns(self.partition)", "owned=True")
    ),
    "a lane does not care whose the partition is": lambda: living_by(
        (
            'return replace(lane, phase="starting") if owned else close(lane)',
            'return replace(lane, phase="starting")',
        )
    ),
    "lanes of an old assignment go on": lambda: group_with(
        ("        await self._end_lanes(self._tuning.rebalance_ms / 3000)\n", "")
    ),
    "a lane begins again where it believes to be": lambda: living_by(
        (
            "    offset = begins_at(bounds)\n    inside",
            "    offset = lane.offset if lane.upto else begins_at(bounds)\n    inside",
        )
    ),
    "merges know nothing of each other": lambda: Parts(merges=MergesWithoutLock),
    "a merge is decided again when it is delivered again": lambda: Parts(merges=MergesAgain),
    "the mover remembers where to": lambda: Parts(mover=RememberedTarget),
}
