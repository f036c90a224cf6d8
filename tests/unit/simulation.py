"""The way of an event on fakes, under a seeded scheduler that may do anything between any two steps.

Workers process two partitions, each whole or not at all; they crash, sleep through a rebalance and wake up fenced, lose
their windows, and meanwhile filters change or leads are merged.  One seed is one schedule.
"""

import random
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from msgspec.structs import replace

from processor.outputs import Outputs
from processor.pipeline import Pipeline
from processor.ports import Answer, EventKey, Fact, Recorded
from processor.pure.types import Case, FilterOrder, Message, Record, Ruling, Seen
from tests.fakes import Database, FakeEvents, FakeRulebook
from tests.fakes_rules import NO_RULES, Document
from tests.fakes_windows import FakeWindows
from tests.oracle_parse import Message as RawMessage
from tests.unit.simulation_truth import Judged, Truth

ORG = "acme"
HOUR = 3_600_000
START = 1_767_268_800_000
"""2026-01-01T12:00:00Z; events happen within a second of it."""
LEADS = (("A", "B", "C"), ("D", "E", "F"))
"""Of each partition."""
OUTPUTS = Outputs("enriched", "dead", lambda _: 1_000_000)
_MOST_STEPS = 20_000


class _Pause:
    def __await__(self) -> Generator[None, None, None]:
        yield


@dataclass
class Parts:
    """What a run is made of; a mutant replaces one of them."""

    pipeline: Callable[..., Any] = Pipeline
    events: type[FakeEvents] = FakeEvents
    windows: type[FakeWindows] = FakeWindows
    writes_first: bool = False
    """Tells windows before the commit."""


@dataclass
class Lane:
    """One partition: its messages, what is committed, and what was published with that."""

    log: list[RawMessage]
    committed: int = 0
    owner: int = 0
    """Grows with each rebalance: whoever has an older number is fenced."""
    published: list[Message] = field(default_factory=list)


class SteppedEvents:
    """Pauses around each commit, and tells the truth what was committed."""

    def __init__(self, run: "Run", inner: FakeEvents) -> None:
        self._run = run
        self._inner = inner

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        await _Pause()
        run = self._run
        if run.parts.writes_first:
            await run.windows.write([Fact(ruling.case, ruling.facts) for ruling in rulings])
            await _Pause()
        known = set(run.database.rows)
        answer = await self._inner.record(rulings, rules)
        if isinstance(answer, Recorded):
            run.committed([r.case for r in rulings], known)
        await _Pause()
        return answer


class SteppedWindows:
    """Pauses around each call, and in the middle of a write."""

    def __init__(self, inner: FakeWindows) -> None:
        self._inner = inner

    async def read(self, cases: Sequence[Case]) -> list[list[Seen]]:
        await _Pause()
        seen = await self._inner.read(cases)
        await _Pause()
        return seen

    async def write(self, facts: Sequence[Fact]) -> None:
        await _Pause()
        half = len(facts) // 2
        await self._inner.write(facts[:half])
        await _Pause()
        await self._inner.write(facts[half:])
        await _Pause()


class Run:
    """One schedule."""

    def __init__(self, seed: int, parts: Parts | None = None) -> None:
        self.random = r = random.Random(seed)
        self.parts = parts or Parts()
        order: FilterOrder = r.choice(("velocity,metadata", "metadata,velocity"))
        self.database = Database(replace(NO_RULES, order=order))
        self.merges = r.random() < 0.4
        self.database.change(*documents(r))
        self.truth = Truth(order)
        lateness = r.choice((0, 10, 60, 200))
        self.windows = self.parts.windows(self.database, lateness)
        self.lanes = messages(r)
        self._tasks: list[Coroutine[Any, Any, None]] = []
        self._workers = [self._worker() for _ in range(2)]
        self._calm = False

    def _worker(self) -> Any:
        events = SteppedEvents(self, self.parts.events(self.database))
        rulebook = FakeRulebook(self.database)
        return self.parts.pipeline(events, SteppedWindows(self.windows), rulebook, OUTPUTS, HOUR)

    def committed(self, cases: Sequence[Case], known: set[EventKey]) -> None:
        """A batch is stored: its new rows are judged by the truth, in order."""
        for case in cases:
            event = case.event
            if (event.org_unit, event.id) not in known:
                lead = self.database.root(event.org_unit, event.lead_id).lead_id
                self.truth.judge(event, lead, self.database.rules)

    def __call__(self) -> "Run":
        """Runs until everything is processed."""
        for lane in self.lanes:
            self._start(lane)
        for _ in range(_MOST_STEPS):
            if all(lane.committed == len(lane.log) for lane in self.lanes) and not self._tasks:
                return self
            self._step()
        raise AssertionError("the schedule does not end")

    def _step(self) -> None:
        if self.random.random() < 0.15 and not self._calm:
            self._trouble()
        if not self._tasks:
            for lane in self.lanes:
                self._start(lane)
        if not self._tasks:
            return  # the last one crashed with nothing left to do
        task = self.random.choice(self._tasks)
        try:
            task.send(None)
        except StopIteration:
            self._tasks.remove(task)

    def _trouble(self) -> None:
        r = self.random
        self._calm = r.random() < 0.03  # from here on all goes well, so that it ends
        match r.randrange(4):
            case 0:
                self.windows.flush()
            case 1 if self._tasks:
                self._tasks.pop(r.randrange(len(self._tasks))).close()
                self._start(r.choice(self.lanes))
            case 2:
                self._start(r.choice(self.lanes))
            case 3 if self.merges:
                self._merge(*r.sample(r.choice(LEADS), 2))
            case _:
                self.database.change(*documents(r))

    def _merge(self, target: str, source: str) -> None:
        root, gone = (self.database.root(ORG, lead).lead_id for lead in (target, source))
        if root != gone:
            self.database.merge(ORG, target, source)
            self.truth.merge(root, gone, self.database.rules)

    def _start(self, lane: Lane) -> None:
        """Gives a partition to a worker; whoever had it goes on and is fenced when it publishes."""
        if lane.committed < len(lane.log):
            lane.owner += 1
            self._tasks.append(self._lane(lane, lane.owner, self.random.choice(self._workers)))

    async def _lane(self, lane: Lane, owner: int, worker: Any) -> None:
        at = lane.committed
        while at < len(lane.log):
            batch: Sequence[Record] = lane.log[at : at + self.random.choice((1, 3, 10, 40))]
            outcome = await worker.process(batch)
            await _Pause()
            if lane.owner != owner:
                return
            lane.published += outcome.messages
            at = lane.committed = outcome.next_offset

    def wrong(self) -> list[object]:
        """What is not as it must be: verdicts, provenance, and what was published."""
        rows = {key[1]: row.ruling for key, row in self.database.rows.items()}
        asked = {orjson.loads(m.value or b"")["id"] for lane in self.lanes for m in lane.log}
        problems: list[object] = []
        if set(rows) != asked or set(self.truth.judged) != asked:
            problems.append(("stored", set(rows) ^ asked))
        for event_id, judged in self.truth.judged.items():
            row = rows[event_id]
            problems += verdict_problems(event_id, judged, row.reason, row.suppressed_by)
        return problems + self._unlike_rows(rows)

    def _unlike_rows(self, rows: dict[str, Ruling]) -> list[object]:
        """Each row is published once, by the message that made it, as it is stored."""
        said = [
            (event["id"], event["suppression_reason"], event["suppressed_by"])
            for lane in self.lanes
            for event in (orjson.loads(m.value or b"") for m in lane.published)
        ]
        stored = [(i, r.reason, r.suppressed_by and dict(r.suppressed_by)) for i, r in rows.items()]
        if sorted(said, key=str) == sorted(stored, key=str):
            return []
        return [("published", one) for one in said if one not in stored] or ["published twice"]


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


def documents(r: random.Random) -> list[Document]:
    """Two velocity filters on page views and perhaps an attribute filter."""
    found: list[Document] = [
        {
            "id": f"v{n}",
            "name": f"V{n}",
            "event_type": "page_view",
            "threshold": r.choice((0, 1, 2, 5)),
            "window_ms": r.choice((5, 20, 50)),
            "keep_first": r.random() < 0.5,
            "enabled": r.random() < 0.9,
        }
        for n in range(2)
    ]
    if r.random() < 0.5:
        conditions = [{"key": "bot", "operator": "exists"}]
        found.append({"id": "m", "name": "Bots", "conditions": conditions})
    return found


def messages(r: random.Random, start: int = START, size: int = 60) -> tuple[Lane, ...]:
    """Two partitions of late, early and duplicate events; a duplicate may have another body, or another partition."""
    lanes, now = (Lane([]), Lane([])), start + 1_000
    bodies: list[tuple[int, dict[str, Any]]] = []
    for n in range(size):
        now += r.choice((0, 0, 1, 1, 2, 3, r.randrange(60)))
        partition = r.randrange(2)
        body = {"id": f"e{n}", "lead_id": _lead(r, partition), "at": now + _shift(r)}
        body["metadata"] = {"bot": 1} if r.random() < 0.1 else {}
        bodies.append((partition, body))
        if r.random() < 0.08:
            bodies.append(r.choice(bodies))
        if r.random() < 0.05:
            other = r.randrange(2)
            changed = {"lead_id": _lead(r, other), "at": now - r.randrange(50)}
            bodies.append((other, {**r.choice(bodies)[1], **changed}))
    for partition, body in bodies:
        log = lanes[partition].log
        stamp = now + r.randrange(1_000)
        log.append(RawMessage("raw", partition, len(log), stamp, None, _value(body)))
    return lanes


def _lead(r: random.Random, partition: int) -> str:
    return r.choices(LEADS[partition], (5, 2, 1))[0]


def _shift(r: random.Random) -> int:
    late = r.randrange(250) if r.random() < 0.25 else 0
    early = r.randrange(150) if r.random() < 0.05 else 0
    return early - late


def _value(body: dict[str, Any]) -> bytes:
    at = datetime.fromtimestamp(body["at"] // 1000, UTC).replace(
        microsecond=body["at"] % 1000 * 1000
    )
    return orjson.dumps(
        {
            "id": body["id"],
            "org_unit": ORG,
            "lead_id": body["lead_id"],
            "event_type": "page_view",
            "metadata": body["metadata"],
            "timestamp": at.isoformat(timespec="milliseconds"),
        }
    )
