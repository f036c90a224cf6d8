"""Postgres and Redis as workers see them: the fakes of `tests.fakes`, a gate before each call, and merges with their moves."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from processor.failures import Retryable
from processor.io.kafka_sink import Idempotent, Transactional
from processor.io.merges import Merged, MergeEvent
from processor.pipeline import Pipeline
from processor.ports import Answer, EventKey, Reading, Recorded
from processor.pure import merge
from processor.pure.merge import Change, Forest
from processor.pure.types import Case, Facts, MergeCommand, Ruling
from processor.worker import Worker
from tests.fakes import Database, FakeEvents, FakeRulebook
from tests.fakes_windows import FakeWindows
from tests.unit.simulation.stage import Process, Stage
from tests.unit.simulation.traffic import ORG
from tests.unit.simulation.truth import Truth

T = TypeVar("T")
_CHUNK = 2
"""Rows that a mover looks at in one step."""
_OFTEN = 30
"""Rules, leads and rows do not change that often while a batch is decided."""


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What a fake answers: it never waits."""
    try:
        call.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    raise AssertionError("a fake waits")


@dataclass
class Place:
    """Where a row stands."""

    raw: str
    lead: str
    original: str | None


@dataclass
class Move:
    """Rows that stand under `lead` are looked at in the order of their ids, from `seen` on."""

    lead: str
    seen: str = ""
    target: str = ""
    """The survivor when the move was asked for, which is no longer believed."""


@dataclass
class Shared:
    """What Postgres and Redis hold, and what has to be true of it."""

    database: Database
    windows: FakeWindows
    truth: Truth
    forest: Forest = field(default_factory=Forest)
    places: dict[str, Place] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    merged: dict[str, Merged] = field(default_factory=dict)
    """By message."""
    roots: dict[str, set[str]] = field(default_factory=dict)
    """All that a lead ever had."""

    def root(self, lead: str) -> str:
        """The survivor now."""
        return merge.root(self.forest, lead)

    def put(self, row: str, raw: str) -> None:
        """A new row stands under the survivor."""
        lead = self.root(raw)
        self.places[row] = Place(raw, lead, raw if raw != lead else None)

    def committed(self, cases: Sequence[Case], known: set[EventKey]) -> None:
        """New rows are judged by the truth, in order."""
        for case in cases:
            event = case.event
            if (event.org_unit, event.id) not in known:
                self.put(event.id, event.lead_id)
                self.truth.judge(event, self.root(event.lead_id), self.database.rules)

    def change(self, change: Change, number: int) -> None:
        """A merge or unmerge is committed: whoever is judged or read from now on is who the forest says."""
        roots = {change.survivor, *change.joined}
        assert not roots & set(self.forest.edges), "who is joined, or survives, is a root"
        self.forest = merge.apply(self.forest, change, number)
        edges = {(ORG, lead): self.root(lead) for lead in self.forest.edges}
        self.database.redirects = edges
        self.database.epochs = {(ORG, lead): n for lead, n in self.forest.epochs.items()}
        for (_, lead), root in edges.items():
            self.roots.setdefault(lead, set()).add(root)
        touched = (change.survivor, *change.parted)
        self.truth.regroup({root: merge.one_with(self.forest, root) for root in touched})
        for lead in sorted(change.joined) or [change.survivor]:
            self.moves.append(Move(lead, target=change.survivor))


class Mover:
    """Moves rows in chunks, each to where it belongs when it is moved."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def step(self) -> None:
        """One chunk of the first move."""
        move, places = self._shared.moves[0], self._shared.places
        found = [row for row in places if places[row].lead == move.lead and row > move.seen]
        for row in sorted(found)[:_CHUNK]:
            place = places[row]
            place.lead = self.target(move, place.raw)
            place.original = place.raw if place.raw != place.lead else None
            move.seen = row
        if len(found) <= _CHUNK:
            self._shared.moves.pop(0)

    def target(self, move: Move, raw: str) -> str:
        """The survivor now, whatever it was when the move was asked for."""
        return self._shared.root(raw)


class Merges:
    """Commands decided on a forest that may be another one when they are recorded."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def record(self, version: int, command: MergeCommand, change: Change) -> bool:
        """False, and nothing is done, where the forest is not that version, or the message is known."""
        if self.refused(version) or self.known(command):
            return False
        leads = {
            lead for root in change.joined for lead in merge.one_with(self.shared.forest, root)
        }
        leads = leads.union(*change.parted.values())
        moved = sum(place.raw in leads for place in self.shared.places.values())
        if change.named:
            self.shared.change(change, len(self.shared.merged) + 1)
        event = self._event(command, change, moved) if change.named else None
        names = change.survivor, change.named
        self.shared.merged[command.message_id] = Merged(*names, moved, event, repeated=False)
        return True

    def known(self, command: MergeCommand) -> bool:
        """The message was recorded before: it is the same however often it is delivered."""
        return command.message_id in self.shared.merged

    def refused(self, version: int) -> bool:
        """Another merge came in between."""
        return version != len(self.shared.merged)

    def _event(self, command: MergeCommand, change: Change, moved: int) -> MergeEvent:
        """Its row stands under the survivor."""
        self.shared.put(command.message_id, change.survivor)
        return MergeEvent(
            id=command.message_id,
            org_unit=command.org_unit,
            lead_id=change.survivor,
            original_lead_id=None,
            event_type="Lead Merged" if command.kind == "merge" else "Lead Unmerged",
            metadata={"source_lead_ids": [*change.named], "events_moved": moved},
            occurred_at=command.occurred_at,
            received_at=command.occurred_at,
        )


@dataclass(frozen=True)
class Parts:
    """What a run is made of; a mutant replaces one of them."""

    pipeline: Callable[..., Any] = Pipeline
    worker: Callable[..., Any] = Worker
    transactional: Callable[..., Any] = Transactional
    idempotent: Callable[..., Any] = Idempotent
    events: type[FakeEvents] = FakeEvents
    windows: type[FakeWindows] = FakeWindows
    merges: type[Merges] = Merges
    mover: type[Mover] = Mover
    own_ids: bool = False
    """Each worker has transactional ids of its own."""
    writes_first: bool = False
    """Tells windows before the commit."""


class Store:
    """The calls of one worker, for its lanes and its mover."""

    def __init__(self, stage: Stage, process: Process, shared: Shared, parts: Parts) -> None:
        self.rulebook = FakeRulebook(shared.database)
        self._stage = stage
        self._process = process
        self._shared = shared
        self._events = parts.events(shared.database)
        self._merges = parts.merges(shared)
        self._mover = parts.mover(shared)
        self._refused = 0
        """Decisions in a row that were not stored."""
        self._writes_first = parts.writes_first

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """As `tests.fakes` does."""
        if self._writes_first:
            reading = Reading([ruling.case for ruling in rulings], ())
            await self.write(reading, [ruling.facts for ruling in rulings])
        what = f"records {names(ruling.case for ruling in rulings)}"
        return await self._call(rulings[0].case, what, lambda: self._recorded(rulings, rules))

    async def read(self, cases: Sequence[Case]) -> Reading:
        """As `tests.fakes_windows` does."""
        windows = self._shared.windows
        if not cases:
            return Reading((), ())
        return await self._call(cases[0], "reads windows", lambda: at_once(windows.read(cases)))

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """In two halves."""
        half = (len(facts) + 1) // 2
        for some in (slice(half), slice(half, None)):
            if facts[some]:
                await self._write(Reading(reading.cases[some], ()), facts[some])

    async def apply(self, command: MergeCommand) -> Merged:
        """As `processor.io.merges` does."""
        who = self._process, f"{command.record.topic}/{command.record.partition}"
        shared, away = self._shared, Retryable("postgres", "away")
        for _ in range(20):
            if self._merges.known(command):
                return replace(shared.merged[command.message_id], repeated=True)
            version, forest = await self._stage.does(
                who, "reads who was merged", lambda _: (len(shared.merged), shared.forest), away
            )
            change = merge.decide(forest, command)
            if await self._record(who, version, command, change):
                return shared.merged[command.message_id]
        raise away

    async def _record(
        self, who: tuple[Process, str], version: int, command: MergeCommand, change: Change
    ) -> bool:
        what = f"records the {command.kind} of {list(command.source_lead_ids)} to {command.target_lead_id}"
        record = partial(self._merges.record, version, command, change)
        away = Retryable("postgres", "away")
        return await self._stage.does(who, what, lambda _: record(), away)

    async def move(self, _: Callable[[], None]) -> None:
        """For ever, a chunk at a time."""
        moves = self._shared.moves
        while True:
            who = self._process, "mover"
            await self._stage.does(
                who, "moves rows", lambda _: self._mover.step(), possible=lambda: bool(moves)
            )

    async def _write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        windows = self._shared.windows
        what = f"tells windows of {names(reading.cases)}"
        await self._call(reading.cases[0], what, lambda: at_once(windows.write(reading, facts)))

    def _recorded(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        known = set(self._shared.database.rows)
        answer = at_once(self._events.record(rulings, rules))
        self._refused = 0 if isinstance(answer, Recorded) else self._refused + 1
        if self._refused == _OFTEN:
            self._stage.problems.append(f"{self._process.name} decides for ever")
        if isinstance(answer, Recorded):
            self._shared.committed([ruling.case for ruling in rulings], known)
        return answer

    async def _call(self, case: Case, what: str, effect: Callable[[], T]) -> T:
        record = case.event.record
        who = self._process, f"{record.topic}/{record.partition}"
        away = Retryable("postgres", "away")
        return await self._stage.does(who, what, lambda _: effect(), away)


def names(cases: Iterable[Case]) -> str:
    """The events, as the schedule says them."""
    return " ".join(case.event.id for case in cases)
