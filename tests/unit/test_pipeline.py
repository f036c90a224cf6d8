"""The way of an event on fakes: what a batch leaves to publish, and what happens when it was judged by something out of date."""

import threading
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from processor.failures import Retryable, Unstorable
from processor.pipeline import Pipeline, _Doubts
from processor.ports import Answer, Reading, StaleRules
from processor.pure.types import Case, Event, Facts, Message, Outcome, Rules, Ruling
from tests.fakes import Database, FakeEvents, FakeRulebook
from tests.fakes_windows import FakeWindows
from tests.oracle_parse import Message as Record
from tests.unit.simulation.traffic import HOUR, ORG, OUTPUTS, START


class HearingWindows(FakeWindows):
    """Remembers what it was told."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.told: list[tuple[Case, Facts]] = []

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """Adds facts."""
        self.told += zip(reading.cases, facts, strict=True)
        await super().write(reading, facts)


class PickyEvents(FakeEvents):
    """Cannot hold an event whose id begins with `bad`."""

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """As Postgres does, nothing of a refused batch stays."""
        if any(ruling.case.event.id.startswith("bad") for ruling in rulings):
            raise Unstorable("22P05")
        return await super().record(rulings, rules)


class World:
    """A database with filters, and a worker on it."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.database = Database()
        self.database.change(*documents)
        self.windows = HearingWindows(self.database)
        self.rulebook = FakeRulebook(self.database)
        self.worker = self.another()
        self._offset = 0

    def another(self, events: type[FakeEvents] = FakeEvents) -> Pipeline:
        """Another worker, which knows nothing of leads."""
        return Pipeline(events(self.database), self.windows, self.rulebook, OUTPUTS, HOUR)

    def message(self, event_id: str, lead_id: str = "A", **more: Any) -> Record:
        """The next message of the partition."""
        body = {
            "id": event_id,
            "org_unit": ORG,
            "lead_id": lead_id,
            "event_type": "page_view",
            **more,
        }
        return self.raw(orjson.dumps(body), lead_id.encode())

    def raw(self, value: bytes | None, key: bytes = b"key") -> Record:
        """The next message of the partition, whatever it holds."""
        self._offset += 1
        return Record("raw", 3, self._offset, START, key, value, (("h", b"1"),))

    def rows(self) -> list[str]:
        """Ids of the rows, in processing order."""
        return [event_id for _, event_id in self.database.rows]


def every(threshold: int = 0, **more: Any) -> dict[str, Any]:
    """A filter on page views."""
    named = {"id": "vf", "name": "V", "event_type": "page_view", "window_ms": 100}
    return {**named, "threshold": threshold, **more}


def said(outcome: Outcome) -> list[tuple[str, Any]]:
    """Topic, and the reason or error, of each message."""
    return [
        (m.topic, value(m).get("suppression_reason", value(m).get("error")))
        for m in outcome.messages
    ]


def value(message: Message) -> dict[str, Any]:
    """What a message holds."""
    found: dict[str, Any] = orjson.loads(message.value or b"")
    return found


async def test_a_batch_is_answered_in_the_order_of_its_records() -> None:
    """Enriched events and dead letters alike, each with the record it answers."""
    world = World(every(threshold=1))
    batch = [world.message("a"), world.raw(b"{"), world.message("b"), world.raw(None)]
    outcome = await world.worker.process(batch)
    topics = [topic for topic, _ in said(outcome)]
    assert topics == ["enriched", "dead", "enriched", "dead"]
    assert [m.source for m in outcome.messages] == batch
    assert outcome.next_offset == batch[-1].offset + 1
    assert (said(outcome)[0][1], said(outcome)[2][1]) == (None, "inorganic")


async def test_a_batch_of_bad_records_asks_nothing_of_anybody() -> None:
    """It is answered and passed."""
    world = World()
    outcome = await world.worker.process([world.raw(b"x"), world.raw(b"[]")])
    assert [topic for topic, _ in said(outcome)] == ["dead", "dead"]
    assert (outcome.next_offset, world.rows(), world.windows.told) == (3, [], [])


async def test_a_redelivered_batch_is_published_as_it_was() -> None:
    """By its rows, whatever the filters say now."""
    world = World(every(threshold=1))
    batch = [world.message("a"), world.message("b")]
    before = await world.worker.process(batch)
    world.database.change(every(threshold=0))
    again = await world.another().process(batch)
    assert [value(m) for m in again.messages] == [value(m) for m in before.messages]
    assert said(again) == [("enriched", None), ("enriched", "inorganic")]


async def test_a_duplicate_is_not_published() -> None:
    """Neither in its own batch nor in another."""
    world = World(every(threshold=9))
    outcome = await world.worker.process([world.message("a"), world.message("a")])
    assert len(outcome.messages) == 1
    outcome = await world.worker.process([world.message("a"), world.message("b")])
    assert [value(m)["id"] for m in outcome.messages] == ["b"]


async def test_a_duplicate_with_another_body_leaves_no_trace() -> None:
    """No window hears of it, and its batch goes on."""
    world = World(every(threshold=9))
    await world.worker.process([world.message("a")])
    world.windows.told.clear()
    outcome = await world.worker.process([world.message("a", "B"), world.message("b")])
    assert [case.event.id for case, _ in world.windows.told] == ["b"]
    assert [value(m)["id"] for m in outcome.messages] == ["b"]


async def test_a_batch_of_nothing_but_strange_duplicates_is_passed() -> None:
    """There is nothing to store."""
    world = World(every())
    await world.worker.process([world.message("a")])
    outcome = await world.worker.process([world.message("a", "B")])
    assert (outcome.messages, outcome.next_offset, world.rows()) == ([], 3, ["a"])


async def test_a_deleted_event_is_not_published_again() -> None:
    """It stays deleted when its message is replayed."""
    world = World()
    batch = [world.message("a")]
    await world.worker.process(batch)
    world.database.delete((ORG, "a"))
    assert not (await world.worker.process(batch)).messages


async def test_windows_are_told_what_rows_say() -> None:
    """Not what is computed now: a filter that is new has no part in an old row."""
    world = World()
    batch = [world.message("a")]
    await world.worker.process(batch)
    world.database.change(every(keep_first=True))
    world.windows.told.clear()
    await world.another().process(batch)
    ((case, facts),) = world.windows.told
    assert (facts.exceeded, len(case.watching)) == ({}, 1)


async def test_rules_that_are_out_of_date_are_reloaded() -> None:
    """The batch is decided again: no row is committed by rules that are gone."""
    world = World()
    world.database.change(every())
    outcome = await world.worker.process([world.message("a")])
    assert said(outcome) == [("enriched", "inorganic")]


async def test_an_event_of_a_merged_lead_is_published_for_the_survivor() -> None:
    """With the lead it named, and keyed by the one it belongs to."""
    world = World(every(threshold=1))
    await world.worker.process([world.message("b", "B")])
    world.database.merge(ORG, "B", "A")
    outcome = await world.worker.process([world.message("a", "A"), world.message("c", "B")])
    first, second = (value(m) for m in outcome.messages)
    assert (first["lead_id"], first["original_lead_id"]) == ("B", "A")
    assert (second["lead_id"], second["original_lead_id"]) == ("B", None)
    assert [m.key for m in outcome.messages] == [b"B", b"B"]
    assert [m.partition for m in outcome.messages] == [None, 3]
    assert [reason for _, reason in said(outcome)] == ["inorganic", "inorganic"]


async def test_an_event_that_cannot_be_stored_becomes_a_dead_letter() -> None:
    """The others of its batch do not suffer, and keep their order."""
    world = World()
    names = ["a", "bad1", "b", "c", "bad2", "d"]
    batch = [world.message(name) for name in names]
    outcome = await world.another(PickyEvents).process(batch)
    assert [m.source.offset for m in outcome.messages if m.source] == [1, 2, 3, 4, 5, 6]
    dead = [value(m) for m in outcome.messages if m.topic == "dead"]
    assert [(letter["offset"], letter["stage"], letter["error"]) for letter in dead] == [
        (2, "store", "not_storable"),
        (5, "store", "not_storable"),
    ]
    assert world.rows() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_batch_is_decided_in_parts_where_many_filters_look_at_it(known: bool) -> None:
    """So that one org unit's thousand filters hold up nobody; also where they come while it is decided."""
    sizes: list[int] = []

    class CountingEvents(FakeEvents):
        async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
            sizes.append(len(rulings))
            return await super().record(rulings, rules)

    world = World()
    world.database.change(
        *[every(threshold=99, id=f"v{n}") for n in range(999)], every(threshold=3)
    )
    if known:
        await world.rulebook.reload()
    names = [f"e{n}" for n in range(120)]
    batch = [world.message(name) for name in [*names, "e0", "e119"]]
    outcome = await world.another(CountingEvents).process(batch)
    assert all(size <= 25 for size in (sizes if known else sizes[1:]))
    assert [value(m)["id"] for m in outcome.messages] == world.rows() == names
    reasons = [reason for _, reason in said(outcome)]
    assert reasons == [None] * 3 + ["inorganic"] * 117


async def test_a_batch_that_is_out_of_date_each_time_is_left_for_later() -> None:
    """The lane backs off; nothing is stored by guess."""

    class NeverCurrent(FakeEvents):
        async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
            return StaleRules()

    world = World()
    with pytest.raises(Retryable, match="change faster"):
        await world.another(NeverCurrent).process([world.message("a")])
    assert (world.rows(), world.windows.told) == ([], [])


class Watched(Pipeline):
    """Knows how many events were looked at, and whether in the thread of the loop."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.looked: list[tuple[int, bool]] = []

    def _cases(self, events: Sequence[Event], rules: Rules, doubts: _Doubts) -> list[Case]:
        here = threading.current_thread() is threading.main_thread()
        self.looked.append((len(events), here))
        return super()._cases(events, rules, doubts)


@pytest.mark.parametrize(("operator", "here"), [("matches", False), ("contains", True)])
async def test_a_search_that_may_take_long_does_not_hold_up_the_loop(
    operator: str, here: bool
) -> None:
    """It is done in a thread, in parts where metadata is large, so that it can be given up; the verdicts are the same."""
    condition = {"key": "k", "operator": operator, "value": "bot"}
    world = World({"id": "mf", "name": "M", "conditions": [condition]})
    worker = Watched(FakeEvents(world.database), world.windows, world.rulebook, OUTPUTS, HOUR)
    texts = ["x", "bot", "a" * 90_000, "robot", "b" * 90_000 + "BOT", "y"]
    batch = [world.message(f"e{n}", metadata={"k": text}) for n, text in enumerate(texts)]
    reasons = [reason for _, reason in said(await worker.process(batch))]
    assert reasons == ["metadata_filter" if "bot" in text.lower() else None for text in texts]
    assert worker.looked == ([(6, True)] if here else [(n, False) for n in (2, 1, 1, 1, 1)])
