"""The inbox: order, bounds and who is told when."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.failures import Retryable
from processor.inbox import Bounds, Budget, Inbox, slices
from processor.pure.types import Record

BOUNDS = Bounds(records=4, weight=100, record_weight=10, first_records=4)


def record(offset: int, size: int = 0) -> Record:
    """A record whose value has that many bytes."""
    found: Record = SimpleNamespace(
        topic="t",
        partition=0,
        offset=offset,
        timestamp=offset,
        key=None,
        value=b"x" * size,
        headers=(),
    )
    return found


def records(*sizes: int) -> list[Record]:
    """Consecutive records of these sizes."""
    return [record(offset, size) for offset, size in enumerate(sizes)]


@given(st.lists(st.lists(st.integers(0, 120), max_size=9), max_size=9))
async def test_what_is_put_is_taken_in_order_in_batches_within_the_bounds(
    fetches: list[list[int]],
) -> None:
    """A record larger than a batch is one of its own."""
    budget, offset = Budget(10_000), 0
    inbox, taken = Inbox(BOUNDS, budget), []
    for sizes in fetches:
        fetched = [record(offset + n, size) for n, size in enumerate(sizes)]
        offset += len(sizes)
        inbox.put(fetched)
    while not inbox.empty:
        batch = await inbox.take()
        weight = sum(10 + len(r.value or b"") for r in batch)
        assert 0 < len(batch) <= BOUNDS.records
        assert weight <= BOUNDS.weight or len(batch) == 1
        taken += [r.offset for r in batch]
    assert taken == list(range(offset))
    inbox.done()
    assert budget.held == 0


async def test_batches_begin_small_and_double_up_to_the_bound() -> None:
    """What comes first is out soon; each record is in one batch, and none is out of order."""
    budget = Budget(10_000)
    inbox = Inbox(Bounds(records=8, weight=1_000, record_weight=10, first_records=1), budget)
    for first, last in ((0, 7), (7, 15), (15, 23)):
        inbox.put([record(offset) for offset in range(first, last)])
    batches = []
    while not inbox.empty:
        batches.append([r.offset for r in await inbox.take()])
    assert [offset for batch in batches for offset in batch] == list(range(23))
    assert [len(batch) for batch in batches] == [1, 2, 4, 8, 8]
    inbox.done()
    assert budget.held == 0


async def test_a_lane_takes_all_that_came_while_it_was_busy() -> None:
    """Few large transactions cost less than many small ones."""
    inbox = Inbox(BOUNDS, Budget(1_000))
    inbox.put([record(0)])
    inbox.put([record(1), record(2)])
    assert [r.offset for r in await inbox.take()] == [0, 1, 2]


async def test_a_full_inbox_has_no_room() -> None:
    """By records, by weight, or because all lanes together hold too much."""
    full = Inbox(BOUNDS, Budget(1_000))
    full.put(records(0, 0, 0, 0))
    heavy = Inbox(BOUNDS, Budget(1_000))
    heavy.put(records(50, 50))
    poor = Inbox(BOUNDS, Budget(0))  # not even a reserve
    assert [i.has_room for i in (full, heavy, poor)] == [False, False, False]
    assert Inbox(BOUNDS, Budget(1)).has_room


async def test_a_lane_that_has_nothing_fetches_while_others_wait_with_all_they_hold() -> None:
    """As long as all of them hold less than twice what they may; one that has a batch in flight has something."""
    budget = Budget(100)
    waiting, other = Inbox(BOUNDS, budget), Inbox(BOUNDS, budget)
    waiting.put(records(90))
    await waiting.take()
    room = [waiting.has_room, other.has_room]
    other.put(records(80))
    await other.take()
    room.append(other.has_room)
    other.done()
    room.append(other.has_room)
    waiting.put(records(110))
    room.append(other.has_room)
    assert room == [False, True, False, True, False]


async def test_a_batch_in_flight_counts_until_it_is_done() -> None:
    """Memory is bounded by what is held, not by what waits."""
    budget = Budget(1_000)
    inbox = Inbox(BOUNDS, budget)
    inbox.put(records(30))
    await inbox.take()
    assert (inbox.empty, budget.held) == (True, 40)
    inbox.done()
    assert budget.held == 0


async def test_clearing_gives_back_everything() -> None:
    """A lane that begins again fetches the same records again."""
    budget = Budget(1_000)
    inbox = Inbox(BOUNDS, budget)
    inbox.put(records(30))
    await inbox.take()
    inbox.put(records(20))
    inbox.clear()
    assert (inbox.empty, budget.held, inbox.oldest_ms) == (True, 0, None)


async def test_the_oldest_record_is_the_first_in_flight_else_the_first_that_waits() -> None:
    """Its age is what an operator sees."""
    inbox = Inbox(BOUNDS, Budget(1_000))
    inbox.put([record(7)])
    assert inbox.oldest_ms == 7
    await inbox.take()
    inbox.put([record(8)])
    assert inbox.oldest_ms == 7


async def test_closing_wakes_the_lane_with_nothing() -> None:
    """What waits is left to the next owner."""
    inbox = Inbox(BOUNDS, Budget(1_000))
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(inbox.take())
        await asyncio.sleep(0)
        inbox.close()
    assert taking.result() == []


async def test_a_failure_is_raised_when_what_is_there_is_used_up() -> None:
    """Records fetched before it are good."""
    inbox = Inbox(BOUNDS, Budget(1_000))
    inbox.put([record(0)])
    inbox.fail(Retryable("kafka", "gone"))
    assert not inbox.has_room
    assert len(await inbox.take()) == 1
    with pytest.raises(Retryable, match="gone"):
        await inbox.take()
    inbox.clear()
    assert inbox.has_room


def test_slices_of_nothing_are_nothing() -> None:
    """An empty fetch leaves no trace."""
    assert list(slices([], BOUNDS)) == []
