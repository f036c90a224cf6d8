"""Merges on a real Postgres: what each rule of merging leaves in the tables and gives to publish."""

import asyncio

import pytest

from processor.failures import Retryable
from processor.io import merges
from processor.pure.types import MergeCommand
from tests.contract.merge_world import ORG, People, joined, people, record_merge
from tests.harness_waiting import until

__all__ = ["people"]
LARGER_THAN_COUNTED = -1
SIDES = [pytest.param(merges.COUNTABLE, id="small"), pytest.param(LARGER_THAN_COUNTED, id="large")]


async def test_rows_move_to_the_survivor_and_remember_their_lead(people: People) -> None:
    """M1, with the event that M5 puts on the survivor's timeline."""
    await people.ingest(("a", "A"), ("b", "B"), ("c", "C"))
    command = people.command("B", "A", "C", "B", requested_by="ann")
    done = await merges.apply(people.postgres, command)
    metadata = {"source_lead_ids": ["A", "C"], "events_moved": 2, "requested_by": "ann"}
    assert (done.survivor, done.named, done.events_moved) == ("B", ("A", "C"), 2)
    assert done.event is not None
    assert (done.event.id, done.event.event_type) == (command.message_id, "Lead Merged")
    assert (done.event.lead_id, done.event.original_lead_id) == ("B", None)
    assert (done.event.metadata, done.event.occurred_at) == (metadata, command.occurred_at)
    assert await people.drain() == 2
    assert await people.rows() == {"a": ("B", "A"), "b": ("B", None), "c": ("B", "C")}
    row = await people.row(command.message_id)
    assert (row["lead_id"], row["original_lead_id"], row["suppression_reason"]) == ("B", None, None)
    assert (row["counted"], row["rules"], row["source_topic"]) == (False, 1, "leads.merges")
    assert row["source_timestamp"] == command.record.timestamp


async def test_readers_see_the_merged_view_from_the_commit_on(people: People) -> None:
    """M6: before any row moves, the class of the survivor has them all, and afterwards too."""
    await people.ingest(("a", "A"), ("b", "B"), ("z", "Z"))
    for target, source in (("B", "A"), ("C", "B")):
        await people.merge(target, source)
    for _ in range(2):
        assert await people.view("C") >= {"a", "b"}
        assert "z" not in await people.view("C")
        await people.drain()


async def test_chains_keep_the_first_original(people: People) -> None:
    """M3: A into B, moved, B into C: A's events are C's with original A."""
    await people.ingest(("a", "A"))
    await people.merge("B", "A")
    await people.drain()
    await people.ingest(("b", "B"), ("late", "A"))
    assert (await people.rows())["late"] == ("B", "A")
    done = await people.merge("C", "B")
    assert done.events_moved == 4  # a, b, late and the Lead Merged row on B
    await people.drain()
    assert await people.rows() == {"a": ("C", "A"), "late": ("C", "A"), "b": ("C", "B")}
    assert await people.bad() == []


@pytest.mark.parametrize(("target", "source"), [("B", "B"), ("A", "B"), ("B", "A"), ("A", "A")])
async def test_itself_a_cycle_and_a_repeat_are_logged_and_nothing_else(
    people: People, target: str, source: str
) -> None:
    """M3: a no-op publishes nothing and touches no class."""
    await people.merge("B", "A")
    epochs = await people.roots(["A", "B"])
    done = await people.merge(target, source)
    assert (done.survivor, done.named, done.events_moved, done.event) == ("B", (), 0, None)
    assert await people.roots(["A", "B"]) == epochs
    assert await people.pool.fetchval("SELECT event_id IS NULL FROM merges WHERE id = 2")


async def test_leads_without_events_are_merged(people: People) -> None:
    """M1: the redirect is there before the first event."""
    done = await people.merge("B", "A")
    assert (done.named, done.events_moved) == (("A",), 0)
    await people.ingest(("a", "A"))
    assert await people.rows() == {"a": ("B", "A")}
    assert await people.drain() == 0


@pytest.mark.parametrize("countable", SIDES)
async def test_a_redelivered_message_gives_its_event_again_and_does_nothing(
    people: People, countable: int
) -> None:
    """M5, also when others were merged since: it is published under the survivor of then."""
    await people.ingest(("a", "A"))
    command = people.command("B", "A")
    first = await merges.apply(people.postgres, command, countable)
    await people.merge("C", "B")
    before = await people.everything()
    again = await merges.apply(people.postgres, command, countable)
    assert await people.everything() == before
    assert again.repeated
    assert first.event is not None
    assert again.event is not None
    assert (again.event.lead_id, again.event.original_lead_id) == ("C", "B")
    assert again.event.metadata == first.event.metadata
    assert again.event.received_at == first.event.received_at


@pytest.mark.parametrize("countable", SIDES)
async def test_events_moved_is_what_the_sources_whole_classes_had(
    people: People, countable: int
) -> None:
    """M5: aliases, moved or not, tombstones and earlier Lead Merged rows; each row once."""
    await people.ingest(("a", "A"), ("b1", "B"), ("b2", "B"), ("t", "T"))
    await people.merge("B", "A")
    await people.drain()
    await people.ingest(("a2", "A"))
    await people.pool.execute("UPDATE events SET deleted_at = now() WHERE id = 'b1'")
    command = people.command("T", "A", "B", "A")
    done = await merges.apply(people.postgres, command, countable)
    assert done.events_moved == 5  # a, a2, b1, b2 and the merge of A into B
    assert done.event is not None
    assert done.event.metadata["events_moved"] == 5


async def test_a_large_class_is_counted_as_it_was_when_the_merge_committed(people: People) -> None:
    """M5: the worker dies after the commit; rows come, move and are merged on before the message comes again."""
    await people.ingest(("a1", "A"), ("a2", "A"), ("b", "B"))
    command = people.command("B", "A")
    await _die_before_counting(people, command)
    await people.ingest(("a3", "A"))
    await people.drain()
    await people.merge("C", "B")
    await people.ingest(("a4", "A"))
    done = await merges.apply(people.postgres, command)
    assert done.events_moved == 2
    assert done.event is not None
    assert (done.event.lead_id, done.event.original_lead_id) == ("C", "B")
    await people.drain()
    assert await people.bad() == []


async def test_rows_after_an_unmerge_do_not_count_for_the_merge(people: People) -> None:
    """M5, M7: the source is on its own again, with new rows under its own name, before the merge is counted."""
    await people.ingest(("a1", "A"))
    command = people.command("B", "A")
    await _die_before_counting(people, command)
    await people.unmerge("B", "A")
    await people.ingest(("a2", "A"))
    assert (await merges.apply(people.postgres, command)).events_moved == 1


async def test_a_merge_whose_id_is_taken_stands_without_an_event(people: People) -> None:
    """Another event has the id: the leads are merged, that event stays, and nothing is published."""
    command = people.command("B", "A")
    await people.ingest(("a", "A"), (command.message_id, "X"))
    for _ in range(2):
        done = await merges.apply(people.postgres, command)
        assert (done.named, done.events_moved, done.event) == (("A",), 1, None)
    await people.drain()
    assert await people.rows() == {"a": ("B", "A"), command.message_id: ("X", None)}


async def test_a_deleted_merge_event_is_not_published_again(people: People) -> None:
    """A tombstone stays one when its message is redelivered."""
    command = people.command("B", "A")
    await merges.apply(people.postgres, command)
    await people.pool.execute("UPDATE events SET deleted_at = now(), metadata = '{}'")
    assert (await merges.apply(people.postgres, command)).event is None


async def test_a_merge_starts_a_new_epoch_for_the_survivor_alone(people: People) -> None:
    """Windows are keyed by it; other leads keep theirs."""
    await people.merge("B", "A")
    assert await people.roots(["A", "B", "C"]) == [("B", 1), ("B", 1), ("C", 0)]
    await people.merge("C", "B")
    assert await people.roots(["A", "B", "C"]) == [("C", 2)] * 3
    await people.unmerge("B", "A")
    assert await people.roots(["A", "B", "C"]) == [("A", 3), ("C", 3), ("C", 3)]


async def test_500_sources_are_a_handful_of_statements(people: People) -> None:
    """One read of the log, one of the roots, one call, one read; never one for each source."""
    sources = [f"s{n}" for n in range(500)]
    await people.ingest(*((f"e{n}", lead) for n, lead in enumerate(sources)))
    calls = 0
    fetch = people.postgres.fetch

    async def counted(name: str, *args: object) -> list[object]:
        nonlocal calls
        calls += 1
        return await fetch(name, *args)

    people.postgres.fetch = counted  # type: ignore[method-assign]
    assert (await people.merge("T", *sources)).events_moved == 500
    assert calls <= 3
    assert await people.drain(limit=120) == 500
    assert await people.bad() == []


async def test_a_second_merge_before_the_first_move_strands_nothing(people: People) -> None:
    """Moves set the root of now, in whatever chunks and order they run."""
    await people.ingest(*((f"{lead}{n}", lead) for lead in "ABC" for n in range(5)))
    await people.merge("B", "A")
    await people.merge("C", "B")
    await people.merge("D", "C")
    await people.drain(limit=2)
    assert set((await people.rows()).values()) == {("D", lead) for lead in "ABC"}
    assert await people.bad() == []


async def test_a_move_resumes_where_a_crash_left_it(people: People) -> None:
    """M6: each chunk is committed with its place; one that dies is done again by the next worker."""
    await people.ingest(*((f"e{n}", "A") for n in range(7)))
    await people.merge("B", "A")
    assert await merges.move_step(people.postgres, 3) == 3
    async with people.pool.acquire() as dying:
        transaction = dying.transaction()
        await transaction.start()
        assert await dying.fetchval("SELECT move_events(3)") == 3
        assert await merges.move_step(people.postgres, 3) is None  # it has the only move
        await transaction.rollback()
    assert [await merges.move_step(people.postgres, 3) for _ in range(3)] == [3, 1, None]
    assert await people.bad() == []


async def test_rows_of_one_time_and_type_are_all_moved(people: People) -> None:
    """Chunks that end among rows alike in all but their id go on with the next id."""
    await people.ingest(*((f"e{n}", "A") for n in range(9)))
    await people.pool.execute("UPDATE events SET occurred_at = 'epoch'")
    await people.merge("B", "A")
    assert await people.drain(limit=2) == 9


async def test_several_movers_share_the_work(people: People) -> None:
    """Each row is moved once, whoever is faster; the loops go on until they are cancelled."""
    await people.ingest(*((f"{lead}{n}", lead) for lead in "ABCD" for n in range(50)))
    await people.merge("T", "A", "B", "C", "D")
    chunks: list[int] = []

    movers = [
        asyncio.ensure_future(merges.mover(people.postgres, chunks.append, 0.01, 7))
        for _ in range(3)
    ]
    await until(lambda: sum(chunks) >= 200)
    for mover in movers:
        mover.cancel()
    for mover in movers:
        with pytest.raises(asyncio.CancelledError):
            await mover
    assert sum(chunks) == 200
    assert await people.bad() == []


async def test_a_mover_waits_for_postgres_and_goes_on(people: People) -> None:
    """A connection that dies in a chunk costs that chunk only."""
    await people.ingest(*((f"e{n}", "A") for n in range(5)))
    await people.merge("B", "A")
    chunks: list[int] = []
    async with people.open() as blocker:
        await blocker.execute(f"SELECT pg_advisory_xact_lock(7703, merge_mutex('{ORG}'))")
        mover = asyncio.ensure_future(merges.mover(people.postgres, chunks.append, 0.01))
        await people.someone_waits()
        await blocker.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        )
    await until(lambda: chunks)
    mover.cancel()
    assert chunks == [5]


async def test_a_busy_bucket_is_retried_later_and_leaves_nothing(people: People) -> None:
    """A batch that stands open on a lead of the class for a second: the merge gives way to ingest."""
    await people.merge("A", "Z")
    before = await people.everything()
    async with people.open() as batch:
        assert await people.record((("z", "Z"),), await people.roots(["Z"]), batch)
        with pytest.raises(Retryable, match="lock timeout"):
            await merges.apply(people.postgres, people.command("B", "A"))
    await people.pool.execute("DELETE FROM events WHERE id = 'z'")
    assert await people.everything() == before
    assert (await people.merge("B", "A")).named == ("A",)


async def _die_before_counting(people: People, command: MergeCommand) -> None:
    async with people.open() as connection:
        assert await record_merge(connection, command, joined("B", "A"), countable=-1)
