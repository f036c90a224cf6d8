"""Merges against ingest, moves and each other, each interleaving forced: who comes first, and that nobody is stranded."""

import asyncio

import orjson
import pytest

from processor.io import merges
from tests.contract.merge_world import ORG, People, joined, people, record_merge
from tests.harness_waiting import until

__all__ = ["people"]


async def test_a_merge_waits_for_a_batch_that_is_being_recorded(people: People) -> None:
    """The batch holds its bucket, so its row is there when the merge counts and moves."""
    async with asyncio.TaskGroup() as tasks, people.open() as batch:
        assert await people.record((("a", "A"),), await people.roots(["A"]), batch)
        merging = tasks.create_task(people.merge("B", "A"))
        await people.someone_waits()
    assert merging.result().events_moved == 1
    await people.drain()
    assert await people.rows() == {"a": ("B", "A")}


@pytest.mark.parametrize(
    ("lead", "ends"), [("A", ("B", "A")), ("B", ("B", None)), ("Z", ("B", "Z"))]
)
async def test_a_batch_waits_for_a_merge_of_its_lead_and_decides_again(
    people: People, lead: str, ends: tuple[str, str | None]
) -> None:
    """It sees the redirect only after its locks.  The target's class too: its epoch is another one."""
    await people.merge("A", "Z")
    async with asyncio.TaskGroup() as tasks, people.open() as merging:
        assert await record_merge(merging, people.command("B", "A"), joined("B", "A"))
        ingesting = tasks.create_task(people.ingest(("e", lead)))
        await people.someone_waits()
    assert ingesting.result() == 2
    assert await people.rows() == {"e": ends}
    await people.drain()
    assert await people.bad() == []


@pytest.mark.parametrize("raw", ["Z", "A", "T", "U"])
async def test_a_merge_waits_for_batches_of_every_lead_of_both_classes(
    people: People, raw: str
) -> None:
    """Aliases of the source and of the target have other buckets than their roots."""
    await people.merge("A", "Z")
    await people.merge("T", "U")
    async with asyncio.TaskGroup() as tasks, people.open() as batch:
        assert await people.record((("e", raw),), await people.roots([raw]), batch)
        merging = tasks.create_task(people.merge("T", "A"))
        await people.someone_waits()
        assert not merging.done()
    await people.drain()
    assert (await people.rows())["e"][0] == "T"
    assert await people.bad() == []


async def test_a_batch_decided_before_a_merge_is_decided_again(people: People) -> None:
    """Roots read before the locks are checked under them."""
    before = await people.roots(["A"])
    await people.merge("B", "A")
    assert not await people.record((("a", "A"),), before)
    assert await people.rows() == {}


async def test_a_batch_of_other_leads_does_not_wait_for_a_merge(people: People) -> None:
    """Only buckets of the two classes are held."""
    buckets = {x: await people.pool.fetchval("SELECT lead_bucket($1, $2)", ORG, x) for x in "ABCD"}
    assert len(set(buckets.values())) == 4
    async with people.open() as merging:
        assert await record_merge(merging, people.command("B", "A"), joined("B", "A"))
        assert await people.ingest(("c", "C"), ("d", "D")) == 1


async def test_ingest_never_waits_for_a_move(people: People) -> None:
    """A chunk holds rows and the merge mutex, which no batch takes."""
    await people.ingest(("a", "A"), ("b", "B"))
    await people.merge("B", "A")
    async with people.open() as moving:
        assert await moving.fetchval("SELECT move_events(10)") == 1
        assert await people.ingest(("a2", "A"), ("b2", "B"), ("x", "X")) == 1
        assert not await people.record((("a", "A"),), [("X", 0)])
    assert await people.bad() == []


async def test_a_merge_waits_for_the_chunk_that_is_being_moved(people: People) -> None:
    """The root a chunk has read is the root until it commits; what it leaves, the merge moves again."""
    await people.ingest(*((f"a{n}", "A") for n in range(4)))
    await people.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, people.open() as moving:
        assert await moving.fetchval("SELECT move_events(2)") == 2
        merging = tasks.create_task(people.merge("C", "B"))
        await people.someone_waits()
    assert merging.result().events_moved == 5
    await people.drain(limit=1)
    assert set((await people.rows()).values()) == {("C", "A")}
    assert await people.bad() == []


async def test_a_move_that_waited_for_a_merge_sets_the_root_of_now(people: People) -> None:
    """The move of A to B was asked for before B went to C."""
    await people.ingest(("a", "A"), ("b", "B"))
    await people.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, people.open() as merging:
        assert await record_merge(merging, people.command("C", "B"), joined("C", "B"))
        moving = tasks.create_task(merges.move_step(people.postgres))
        await people.someone_waits()
    assert moving.result() == 3  # a, and what the second merge left on B
    assert (await people.rows())["a"] == ("C", "A")
    await people.drain()
    assert await people.bad() == []


async def test_a_row_deleted_while_it_is_moved_is_both(people: People) -> None:
    """A delete and a chunk meet on a row: the second goes on with what the first left."""
    await people.ingest(("a", "A"))
    await people.merge("B", "A")
    async with asyncio.TaskGroup() as tasks, people.open() as deleting:
        await deleting.execute(
            """UPDATE events SET deleted_at = now(), metadata = '{"gone": 1}' WHERE id = 'a'"""
        )
        moving = tasks.create_task(merges.move_step(people.postgres))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await until(lambda: people.pool.fetchval(waits))
    assert moving.result() == 1
    row = await people.row("a")
    assert (row["lead_id"], row["deleted_at"] is None) == ("B", False)
    assert row["metadata"] == '{"gone": 1}'


async def test_a_call_locks_the_rows_of_all_its_moves_in_the_order_of_their_ids(
    people: People,
) -> None:
    """As deletes and purges do, and other workers: whoever waits for a row holds none that comes after it."""
    await people.ingest(("b", "A"), ("a", "B"))
    await people.merge("Z", "A")
    await people.merge("Z", "B")
    deleted = "UPDATE events SET deleted_at = now() WHERE id = $1"
    async with asyncio.TaskGroup() as tasks, people.open() as deleting:
        await deleting.execute(deleted, "a")
        moving = tasks.create_task(merges.move_step(people.postgres))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        await until(lambda: people.pool.fetchval(waits))
        await deleting.execute(deleted, "b")
    assert moving.result() == 2
    assert await people.rows() == {"a": ("Z", "B"), "b": ("Z", "A")}


async def test_one_message_on_two_workers_is_one_merge(people: People) -> None:
    """A zombie and the new owner of its partition: one records, the other finds it."""
    await people.ingest(("a", "A"))
    command = people.command("B", "A")
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(merges.apply(people.postgres, command)) for _ in range(2)]
    assert both[0].result().event == both[1].result().event
    assert await people.pool.fetchval("SELECT count(*) FROM merges") == 1


async def test_two_workers_that_count_the_same_merge_store_one_event(people: People) -> None:
    """A large merge whose message two workers have at once."""
    await people.ingest(("a", "A"))
    command = people.command("B", "A")
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(merges.apply(people.postgres, command, -1)) for _ in range(2)]
    assert both[0].result().event == both[1].result().event
    assert both[0].result().events_moved == 1


async def test_a_message_recorded_since_it_was_looked_up_is_refused(people: People) -> None:
    """The other worker was done between this one's look at the log and its look at the forest."""
    command = people.command("B", "A")
    await merges.apply(people.postgres, command)
    before = await people.everything()
    assert not await record_merge(people.pool, command, joined("C", "X"))
    assert await people.everything() == before


async def test_the_event_of_a_large_merge_holds_off_the_next_merge(people: People) -> None:
    """It stands under the root of now, or is moved: a merge of the survivor waits until it is stored."""
    await people.ingest(("a", "A"))
    command = people.command("B", "A")
    assert await record_merge(people.pool, command, joined("B", "A"), -1)
    fields = orjson.dumps(merges._fields(command)).decode()
    async with asyncio.TaskGroup() as tasks, people.open() as storing:
        await storing.execute("SELECT record_merge_event(1, $1, 1)", fields)
        merging = tasks.create_task(people.merge("C", "B"))
        await people.someone_waits()
    assert merging.result().events_moved == 2
    await people.drain()
    assert await people.bad() == []


async def test_a_merge_decided_on_an_older_forest_is_decided_again(people: People) -> None:
    """A into B and B into A at once, from two partitions: the second finds itself a no-op."""
    async with asyncio.TaskGroup() as tasks, people.open() as first:
        assert await record_merge(first, people.command("B", "A"), joined("B", "A"))
        second = tasks.create_task(people.merge("A", "B"))
        await people.someone_waits()
    assert second.result().named == ()
    assert await people.roots(["A", "B"]) == [("B", 1), ("B", 1)]
