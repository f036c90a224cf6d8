"""Merges on a real Postgres: what each rule of merging leaves in the tables and gives to publish."""

import asyncio

import pytest

from processor.failures import Retryable
from processor.io import merges
from processor.pure.types import MergeCommand
from tests.contract.merge_world import ORG, World, hold_merge, joined, server, until, world

__all__ = ["server", "world"]
LARGER_THAN_COUNTED = -1
SIDES = [pytest.param(merges.COUNTABLE, id="small"), pytest.param(LARGER_THAN_COUNTED, id="large")]


async def test_rows_move_to_the_survivor_and_remember_their_lead(world: World) -> None:
    """M1, with the event that M5 puts on the survivor's timeline."""
    await world.ingest(("a", "A"), ("b", "B"), ("c", "C"))
    command = world.command("B", "A", "C", "B", requested_by="ann")
    done = await merges.apply(world.postgres, command)
    metadata = {"source_lead_ids": ["A", "C"], "events_moved": 2, "requested_by": "ann"}
    assert (done.survivor, done.named, done.events_moved) == ("B", ("A", "C"), 2)
    assert done.event is not None
    assert (done.event.id, done.event.event_type) == (command.message_id, "Lead Merged")
    assert (done.event.lead_id, done.event.original_lead_id) == ("B", None)
    assert (done.event.metadata, done.event.occurred_at) == (metadata, command.occurred_at)
    assert await world.drain() == 2
    assert await world.rows() == {"a": ("B", "A"), "b": ("B", None), "c": ("B", "C")}
    row = await world.row(command.message_id)
    assert (row["lead_id"], row["original_lead_id"], row["suppression_reason"]) == ("B", None, None)
    assert (row["counted"], row["rules"], row["source_topic"]) == (False, 1, "leads.merges")
    assert row["source_timestamp"] == command.record.timestamp


async def test_readers_see_the_merged_view_from_the_commit_on(world: World) -> None:
    """M6: before any row moves, the class of the survivor has them all, and afterwards too."""
    await world.ingest(("a", "A"), ("b", "B"), ("z", "Z"))
    for target, source in (("B", "A"), ("C", "B")):
        await world.merge(target, source)
    for _ in range(2):
        assert await world.view("C") >= {"a", "b"}
        assert "z" not in await world.view("C")
        await world.drain()


async def test_chains_keep_the_first_original(world: World) -> None:
    """M3: A into B, moved, B into C: A's events are C's with original A."""
    await world.ingest(("a", "A"))
    await world.merge("B", "A")
    await world.drain()
    await world.ingest(("b", "B"), ("late", "A"))
    assert (await world.rows())["late"] == ("B", "A")
    done = await world.merge("C", "B")
    assert done.events_moved == 4  # a, b, late and the Lead Merged row on B
    await world.drain()
    assert await world.rows() == {"a": ("C", "A"), "late": ("C", "A"), "b": ("C", "B")}
    assert await world.bad() == []


@pytest.mark.parametrize(("target", "source"), [("B", "B"), ("A", "B"), ("B", "A"), ("A", "A")])
async def test_itself_a_cycle_and_a_repeat_are_logged_and_nothing_else(
    world: World, target: str, source: str
) -> None:
    """M3: a no-op publishes nothing and touches no class."""
    await world.merge("B", "A")
    epochs = await world.roots(["A", "B"])
    done = await world.merge(target, source)
    assert (done.survivor, done.named, done.events_moved, done.event) == ("B", (), 0, None)
    assert await world.roots(["A", "B"]) == epochs
    assert await world.pool.fetchval("SELECT event_id IS NULL FROM merges WHERE id = 2")


async def test_leads_without_events_are_merged(world: World) -> None:
    """M1: the redirect is there before the first event."""
    done = await world.merge("B", "A")
    assert (done.named, done.events_moved) == (("A",), 0)
    await world.ingest(("a", "A"))
    assert await world.rows() == {"a": ("B", "A")}
    assert await world.drain() == 0


@pytest.mark.parametrize("countable", SIDES)
async def test_a_redelivered_message_gives_its_event_again_and_does_nothing(
    world: World, countable: int
) -> None:
    """M5, also when others were merged since: it is published under the survivor of then."""
    await world.ingest(("a", "A"))
    command = world.command("B", "A")
    first = await merges.apply(world.postgres, command, countable)
    await world.merge("C", "B")
    before = await world.everything()
    again = await merges.apply(world.postgres, command, countable)
    assert await world.everything() == before
    assert again.repeated
    assert first.event is not None
    assert again.event is not None
    assert (again.event.lead_id, again.event.original_lead_id) == ("C", "B")
    assert again.event.metadata == first.event.metadata
    assert again.event.received_at == first.event.received_at


@pytest.mark.parametrize("countable", SIDES)
async def test_events_moved_is_what_the_sources_whole_classes_had(
    world: World, countable: int
) -> None:
    """M5: aliases, moved or not, tombstones and earlier Lead Merged rows; each row once."""
    await world.ingest(("a", "A"), ("b1", "B"), ("b2", "B"), ("t", "T"))
    await world.merge("B", "A")
    await world.drain()
    await world.ingest(("a2", "A"))
    await world.pool.execute("UPDATE events SET deleted_at = now() WHERE id = 'b1'")
    command = world.command("T", "A", "B", "A")
    done = await merges.apply(world.postgres, command, countable)
    assert done.events_moved == 5  # a, a2, b1, b2 and the merge of A into B
    assert done.event is not None
    assert done.event.metadata["events_moved"] == 5


async def test_a_large_class_is_counted_as_it_was_when_the_merge_committed(world: World) -> None:
    """M5: the worker dies after the commit; rows come, move and are merged on before the message comes again."""
    await world.ingest(("a1", "A"), ("a2", "A"), ("b", "B"))
    command = world.command("B", "A")
    await _die_before_counting(world, command)
    await world.ingest(("a3", "A"))
    await world.drain()
    await world.merge("C", "B")
    await world.ingest(("a4", "A"))
    done = await merges.apply(world.postgres, command)
    assert done.events_moved == 2
    assert done.event is not None
    assert (done.event.lead_id, done.event.original_lead_id) == ("C", "B")
    await world.drain()
    assert await world.bad() == []


async def test_a_merge_whose_id_is_taken_stands_without_an_event(world: World) -> None:
    """Another event has the id: the leads are merged, that event stays, and nothing is published."""
    command = world.command("B", "A")
    await world.ingest(("a", "A"), (command.message_id, "X"))
    for _ in range(2):
        done = await merges.apply(world.postgres, command)
        assert (done.named, done.events_moved, done.event) == (("A",), 1, None)
    await world.drain()
    assert await world.rows() == {"a": ("B", "A"), command.message_id: ("X", None)}


async def test_a_deleted_merge_event_is_not_published_again(world: World) -> None:
    """A tombstone stays one when its message is redelivered."""
    command = world.command("B", "A")
    await merges.apply(world.postgres, command)
    await world.pool.execute("UPDATE events SET deleted_at = now(), metadata = '{}'")
    assert (await merges.apply(world.postgres, command)).event is None


async def test_a_merge_starts_a_new_epoch_for_the_survivor_alone(world: World) -> None:
    """Windows are keyed by it; other leads keep theirs."""
    await world.merge("B", "A")
    assert await world.roots(["A", "B", "C"]) == [("B", 1), ("B", 1), ("C", 0)]
    await world.merge("C", "B")
    assert await world.roots(["A", "B", "C"]) == [("C", 2)] * 3
    await world.unmerge("B", "A")
    assert await world.roots(["A", "B", "C"]) == [("A", 3), ("C", 3), ("C", 3)]


async def test_500_sources_are_a_handful_of_statements(world: World) -> None:
    """One read of the log, one of the roots, one call, one read; never one for each source."""
    sources = [f"s{n}" for n in range(500)]
    await world.ingest(*((f"e{n}", lead) for n, lead in enumerate(sources)))
    calls = 0
    fetch = world.postgres.fetch

    async def counted(name: str, *args: object) -> list[object]:
        nonlocal calls
        calls += 1
        return await fetch(name, *args)

    world.postgres.fetch = counted  # type: ignore[method-assign]
    assert (await world.merge("T", *sources)).events_moved == 500
    assert calls <= 3
    assert await world.drain(limit=120) == 500
    assert await world.bad() == []


async def test_a_second_merge_before_the_first_move_strands_nothing(world: World) -> None:
    """V7: moves set the root of now, in whatever chunks and order they run."""
    await world.ingest(*((f"{lead}{n}", lead) for lead in "ABC" for n in range(5)))
    await world.merge("B", "A")
    await world.merge("C", "B")
    await world.merge("D", "C")
    await world.drain(limit=2)
    assert set((await world.rows()).values()) == {("D", lead) for lead in "ABC"}
    assert await world.bad() == []


async def test_a_move_resumes_where_a_crash_left_it(world: World) -> None:
    """M6: each chunk is committed with its place; one that dies is done again by the next worker."""
    await world.ingest(*((f"e{n}", "A") for n in range(7)))
    await world.merge("B", "A")
    assert await merges.move_step(world.postgres, 3) == 3
    async with world.pool.acquire() as dying:
        transaction = dying.transaction()
        await transaction.start()
        assert await dying.fetchval("SELECT move_events(3)") == 3
        assert await merges.move_step(world.postgres, 3) is None  # it has the only move
        await transaction.rollback()
    assert [await merges.move_step(world.postgres, 3) for _ in range(3)] == [3, 1, None]
    assert await world.bad() == []


async def test_rows_of_one_time_and_type_are_all_moved(world: World) -> None:
    """Chunks that end among rows alike in all but their id go on with the next id."""
    await world.ingest(*((f"e{n}", "A") for n in range(9)))
    await world.pool.execute("UPDATE events SET occurred_at = 'epoch'")
    await world.merge("B", "A")
    assert await world.drain(limit=2) == 9


async def test_several_movers_share_the_work(world: World) -> None:
    """Each row is moved once, whoever is faster; the loops go on until they are cancelled."""
    await world.ingest(*((f"{lead}{n}", lead) for lead in "ABCD" for n in range(50)))
    await world.merge("T", "A", "B", "C", "D")
    chunks: list[int] = []

    movers = [
        asyncio.ensure_future(merges.mover(world.postgres, chunks.append, 0.01, 7))
        for _ in range(3)
    ]
    await until(lambda: asyncio.sleep(0.005, sum(chunks) >= 200))
    for mover in movers:
        mover.cancel()
    for mover in movers:
        with pytest.raises(asyncio.CancelledError):
            await mover
    assert sum(chunks) == 200
    assert await world.bad() == []


async def test_a_mover_waits_for_postgres_and_goes_on(world: World) -> None:
    """A connection that dies in a chunk costs that chunk only."""
    await world.ingest(*((f"e{n}", "A") for n in range(5)))
    await world.merge("B", "A")
    chunks: list[int] = []
    async with world.open() as blocker:
        await blocker.execute(f"SELECT pg_advisory_xact_lock(7703, merge_mutex('{ORG}'))")
        mover = asyncio.ensure_future(merges.mover(world.postgres, chunks.append, 0.01))
        await world.someone_waits()
        await blocker.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()"""
        )
    await until(lambda: asyncio.sleep(0.005, bool(chunks)))
    mover.cancel()
    assert chunks == [5]


async def test_a_busy_bucket_is_retried_later_and_leaves_nothing(world: World) -> None:
    """A batch that stands open on a lead of the class for a second: the merge gives way to ingest."""
    await world.merge("A", "Z")
    before = await world.everything()
    async with world.open() as batch:
        assert await world.record((("z", "Z"),), await world.roots(["Z"]), batch)
        with pytest.raises(Retryable, match="lock timeout"):
            await world.merge("B", "A")
    await world.pool.execute("DELETE FROM events WHERE id = 'z'")
    assert await world.everything() == before
    assert (await world.merge("B", "A")).named == ("A",)


async def test_an_unmerge_gives_back_all_events_of_the_source(world: World) -> None:
    """M7: those that arrived since too, moved or not; those of the target stay."""
    await world.ingest(("y", "Y"), ("a", "A"), ("t", "T"))
    await world.merge("A", "Y")
    await world.merge("T", "A")
    await world.drain()
    await world.ingest(("a2", "A"), ("y2", "Y"), ("t2", "T"))
    done = await world.unmerge("T", "A", "X", "T")
    assert done.event is not None
    assert (done.event.event_type, done.event.lead_id) == ("Lead Unmerged", "T")
    assert (done.named, done.events_moved) == (("A",), 5)  # and the merge of Y into A
    assert await world.view("A") >= {"a", "a2", "y", "y2"}
    assert not await world.view("T") & {"a", "a2", "y", "y2"}
    await world.drain(limit=2)
    leads = {"y": ("A", "Y"), "y2": ("A", "Y"), "a": ("A", None), "a2": ("A", None)}
    assert await world.rows() == leads | {"t": ("T", None), "t2": ("T", None)}
    assert await world.bad() == []


async def test_an_unmerge_before_the_moves_of_its_merge(world: World) -> None:
    """M7: rows that never left are passed over, rows on their way go to the root of now."""
    await world.ingest(*((f"{lead}{n}", lead) for lead in "AB" for n in range(5)))
    await world.merge("B", "A")
    await merges.move_step(world.postgres, 3)
    await world.merge("C", "B")
    await world.unmerge("B", "A")
    await world.merge("D", "A")
    await world.drain(limit=2)
    assert set((await world.rows()).values()) == {("D", "A"), ("C", "B")}
    assert await world.bad() == []


async def test_the_same_merge_again_after_an_unmerge_is_a_merge(world: World) -> None:
    """Edges are kept with what took them back; only one of a lead stands at a time."""
    for _ in range(2):
        assert (await world.merge("B", "A")).named == ("A",)
        assert (await world.unmerge("B", "A")).named == ("A",)
        assert (await world.unmerge("B", "A")).event is None
    assert await world.roots(["A"]) == [("A", 5)]


async def _die_before_counting(world: World, command: MergeCommand) -> None:
    async with world.open() as connection:
        await hold_merge(connection, command, joined("B", "A"), countable=-1)
