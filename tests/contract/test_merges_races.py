"""Merges against ingest, moves and each other, each interleaving forced: who comes first, and that nobody is stranded."""

import asyncio

import pytest

from processor.io import merges
from tests.contract.merge_world import ORG, World, hold_merge, joined, server, until, world

__all__ = ["server", "world"]


async def test_a_merge_waits_for_a_batch_that_is_being_recorded(world: World) -> None:
    """V1: the batch holds its bucket, so its row is there when the merge counts and moves."""
    async with asyncio.TaskGroup() as tasks, world.open() as batch:
        assert await world.record((("a", "A"),), await world.roots(["A"]), batch)
        merging = tasks.create_task(world.merge("B", "A"))
        await world.someone_waits()
    assert merging.result().events_moved == 1
    await world.drain()
    assert await world.rows() == {"a": ("B", "A")}


@pytest.mark.parametrize(
    ("lead", "ends"), [("A", ("B", "A")), ("B", ("B", None)), ("Z", ("B", "Z"))]
)
async def test_a_batch_waits_for_a_merge_of_its_lead_and_decides_again(
    world: World, lead: str, ends: tuple[str, str | None]
) -> None:
    """V2, V3, V5: it sees the redirect only after its locks.  The target's class too: its epoch is another one."""
    await world.merge("A", "Z")
    async with asyncio.TaskGroup() as tasks, world.open() as merging:
        await hold_merge(merging, world.command("B", "A"), joined("B", "A"))
        ingesting = tasks.create_task(world.ingest(("e", lead)))
        await world.someone_waits()
    assert ingesting.result() == 2
    assert await world.rows() == {"e": ends}
    await world.drain()
    assert await world.bad() == []


@pytest.mark.parametrize("raw", ["Z", "A", "T", "U"])
async def test_a_merge_waits_for_batches_of_every_lead_of_both_classes(
    world: World, raw: str
) -> None:
    """V5: aliases of the source and of the target have other buckets than their roots."""
    await world.merge("A", "Z")
    await world.merge("T", "U")
    async with asyncio.TaskGroup() as tasks, world.open() as batch:
        assert await world.record((("e", raw),), await world.roots([raw]), batch)
        merging = tasks.create_task(world.merge("T", "A"))
        await world.someone_waits()
        assert not merging.done()
    await world.drain()
    assert (await world.rows())["e"][0] == "T"
    assert await world.bad() == []


async def test_a_batch_decided_before_a_merge_is_decided_again(world: World) -> None:
    """Roots read before the locks are checked under them."""
    before = await world.roots(["A"])
    await world.merge("B", "A")
    assert not await world.record((("a", "A"),), before)
    assert await world.rows() == {}


async def test_a_batch_of_other_leads_does_not_wait_for_a_merge(world: World) -> None:
    """Only buckets of the two classes are held."""
    buckets = {x: await world.pool.fetchval("SELECT lead_bucket($1, $2)", ORG, x) for x in "ABCD"}
    assert len(set(buckets.values())) == 4
    async with world.open() as merging:
        await hold_merge(merging, world.command("B", "A"), joined("B", "A"))
        assert await world.ingest(("c", "C"), ("d", "D")) == 1


async def test_ingest_never_waits_for_a_move(world: World) -> None:
    """A chunk holds rows and the merge mutex, which no batch takes."""
    await world.ingest(("a", "A"), ("b", "B"))
    await world.merge("B", "A")
    async with world.open() as moving:
        assert await moving.fetchval("SELECT move_events(10)") == 1
        assert await world.ingest(("a2", "A"), ("b2", "B"), ("x", "X")) == 1
        assert not await world.record((("a", "A"),), [("X", 0)])
    assert await world.bad() == []


async def test_a_merge_waits_for_the_chunk_that_is_being_moved(world: World) -> None:
    """V7: the root a chunk has read is the root until it commits; what it leaves, the merge moves again."""
    await world.ingest(*((f"a{n}", "A") for n in range(4)))
    await world.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, world.open() as moving:
        assert await moving.fetchval("SELECT move_events(2)") == 2
        merging = tasks.create_task(world.merge("C", "B"))
        await world.someone_waits()
    assert merging.result().events_moved == 5
    await world.drain(limit=1)
    assert set((await world.rows()).values()) == {("C", "A")}
    assert await world.bad() == []


async def test_a_move_that_waited_for_a_merge_sets_the_root_of_now(world: World) -> None:
    """V7: the move of A to B was asked for before B went to C."""
    await world.ingest(("a", "A"), ("b", "B"))
    await world.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, world.open() as merging:
        await hold_merge(merging, world.command("C", "B"), joined("C", "B"))
        moving = tasks.create_task(merges.move_step(world.postgres))
        await world.someone_waits()
    assert moving.result() == 3  # a, and what the second merge left on B
    assert (await world.rows())["a"] == ("C", "A")
    await world.drain()
    assert await world.bad() == []


async def test_a_row_deleted_while_it_is_moved_is_both(world: World) -> None:
    """A delete and a chunk meet on a row: the second goes on with what the first left."""
    await world.ingest(("a", "A"))
    await world.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, world.open() as deleting:
        await deleting.execute(
            """UPDATE events SET deleted_at = now(), metadata = '{"gone": 1}' WHERE id = 'a'"""
        )
        moving = tasks.create_task(merges.move_step(world.postgres))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await until(lambda: world.pool.fetchval(waits))
    assert moving.result() == 1
    row = await world.row("a")
    assert (row["lead_id"], row["deleted_at"] is None) == ("B", False)
    assert row["metadata"] == '{"gone": 1}'


async def test_one_message_on_two_workers_is_one_merge(world: World) -> None:
    """A zombie and the new owner of its partition: one records, the other finds it."""
    await world.ingest(("a", "A"))
    command = world.command("B", "A")
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(merges.apply(world.postgres, command)) for _ in range(2)]
    assert both[0].result().event == both[1].result().event
    assert await world.pool.fetchval("SELECT count(*) FROM merges") == 1


async def test_two_workers_that_count_the_same_merge_store_one_event(world: World) -> None:
    """A large merge whose message two workers have at once."""
    await world.ingest(("a", "A"))
    command = world.command("B", "A")
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(merges.apply(world.postgres, command, -1)) for _ in range(2)]
    assert both[0].result().event == both[1].result().event
    assert both[0].result().events_moved == 1


async def test_a_merge_decided_on_an_older_forest_is_decided_again(world: World) -> None:
    """A into B and B into A at once, from two partitions: the second finds itself a no-op."""
    async with asyncio.TaskGroup() as tasks, world.open() as first:
        await hold_merge(first, world.command("B", "A"), joined("B", "A"))
        second = tasks.create_task(world.merge("A", "B"))
        await world.someone_waits()
    assert second.result().named == ()
    assert await world.roots(["A", "B"]) == [("B", 1), ("B", 1)]
