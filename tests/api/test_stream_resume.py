"""Coming back to the live stream: no gap, no repeat, and a plain word where that cannot be."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from processor.io.kafka_topics import create_topics
from processor.pure import position
from tests.api.client import Api, api, running
from tests.api.sse import Stream, enriched, listening, merged, publish
from tests.e2e.operating import administering, grow
from tests.harness import Message, World
from tests.harness_waiting import until

__all__ = ["api"]
pytestmark = pytest.mark.e2e


async def transact(world: World, events: Sequence[Message], *, commit: bool = True) -> None:
    """As a worker publishes, or as one that fails."""
    async with transaction(world, events) as producer:
        await (producer.commit_transaction() if commit else producer.abort_transaction())


@asynccontextmanager
async def transaction(world: World, events: Sequence[Message]) -> AsyncIterator[Any]:
    """A producer with these events in an open transaction."""
    name = f"{world.id}.{random.random()}"
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka, transactional_id=name)
    await producer.start()
    try:
        await producer.begin_transaction()
        for event in events:
            await producer.send_and_wait(
                world.enriched, event.value, partition=event.partition, headers=event.headers
            )
        yield producer
    finally:
        await producer.stop()


async def left_at(api: Api, *events: Message) -> Stream:
    """A client that had these events and went away."""
    async with listening(api.client) as stream:
        await publish(api.world, events)
        await until(lambda: len(stream.ids()) == len(events))
    return stream


async def test_a_client_that_comes_back_gets_what_it_missed_and_then_what_comes(api: Api) -> None:
    """In order, nothing twice, and of its own org unit alone."""
    had = await left_at(api, *(enriched(f"had-{n}", partition=n % 2) for n in range(4)))
    missed = [enriched(f"evt-{n}", partition=n % 2) for n in range(1_500)]
    await publish(api.world, [*missed, enriched("foreign", "rival")])
    async with listening(api.client, last_id=had.events[-1].id) as stream:
        await publish(
            api.world, [enriched(f"evt-{n}", partition=n % 2) for n in range(1_500, 1_600)]
        )
        await until(lambda: len(stream.ids()) >= 1_600, 20)
        await publish(api.world, [enriched("last")])
        await until(lambda: "last" in stream.ids())
    numbers = [int(i.removeprefix("evt-")) for i in stream.ids() if i != "last"]
    assert sorted(numbers) == list(range(1_600))
    for partition in (0, 1):
        mine = [number for number in numbers if number % 2 == partition]
        assert mine == sorted(mine)


async def test_a_client_may_come_back_to_before_its_first_event(api: Api) -> None:
    """The stream begins with an id."""
    async with listening(api.client) as stream:
        await until(lambda: stream.last_id)
    await publish(api.world, [enriched("missed")])
    async with listening(api.client, f"?last_event_id={stream.last_id}") as again:
        await again.has(1)
    assert (again.names(), again.ids()) == (["new_event"], ["missed"])


async def test_of_a_record_with_two_events_the_second_is_what_is_left(api: Api) -> None:
    """Whatever has happened elsewhere since; and the header wins over the query."""
    begin = await left_at(api)
    async with listening(api.client) as stream:
        for number, partition in enumerate((0, 1)):
            await publish(api.world, [merged(f"mrg-{partition}", partition=partition)])
            await stream.has(2 * number + 2)
    await publish(api.world, [merged("mrg-2", partition=0), merged("mrg-3", partition=1)])
    for half, missed in ((0, ["mrg-1", "mrg-2", "mrg-3"]), (2, ["mrg-2", "mrg-3"])):
        query = f"?last_event_id={begin.last_id}"
        async with listening(api.client, query, stream.events[half].id) as again:
            await again.has(1 + 2 * len(missed))
        assert again.names()[0] == "lead_merged"
        assert again.events[0].data == stream.events[half + 1].data
        assert sorted(again.ids()) == missed
    async with listening(api.client, last_id=stream.events[3].id) as again:
        await again.has(4)
    assert sorted(again.ids()) == ["mrg-2", "mrg-3"]


async def test_transactions_are_sent_when_they_are_committed_and_their_ends_are_no_events(
    api: Api,
) -> None:
    """What is aborted never, what is open not yet; a client comes back behind a marker as anywhere else."""
    async with listening(api.client) as stream:
        await transact(api.world, [enriched(f"one-{p}", partition=p) for p in (0, 1)])
        await stream.has(2)
        await transact(api.world, [enriched("never", partition=0)], commit=False)
        await transact(api.world, [enriched("two", partition=1)])
        await stream.has(3)
    async with (
        transaction(api.world, [enriched("open", partition=0)]) as producer,
        listening(api.client, last_id=stream.events[-1].id) as again,
        listening(api.client) as fresh,
    ):
        await transact(api.world, [enriched("three", partition=1)])
        await until(lambda: again.ids() == ["three"] == fresh.ids())
        await producer.commit_transaction()
        await until(lambda: again.ids() == ["three", "open"] == fresh.ids())
    await transact(api.world, [enriched("four", partition=0)])
    async with (
        listening(api.client, last_id=fresh.last_id) as first,
        listening(api.client, last_id=again.last_id) as second,
    ):
        await until(lambda: first.ids() == ["four"] == second.ids())


async def test_a_client_that_comes_and_goes_between_processes_gets_everything_once(
    api: Api,
) -> None:
    """Whenever it loses its connection: in the middle of what it missed, or live."""
    chance = random.Random(7)
    got: list[str] = []
    last_id = (await left_at(api)).last_id
    events = [
        merged(f"evt-{n}", partition=n % 2) if n % 5 == 0 else enriched(f"evt-{n}", partition=n % 2)
        for n in range(400)
    ]
    expected = [f"new_event evt-{n}" for n in range(400)]
    expected += [f"lead_merged evt-{n}" for n in range(0, 400, 5)]
    async with running(api.world) as other, asyncio.TaskGroup() as tasks:
        tasks.create_task(publish_slowly(api.world, events))
        while len(got) < len(expected):
            client = chance.choice([api.client, other.client])
            wanted = min(chance.choice([1, 20, 90]), len(expected) - len(got))
            async with listening(client, last_id=last_id) as stream:
                await stream.has_at_least(wanted, 20)
            taken = stream.events[: wanted if chance.random() < 0.5 else None]
            got += [f"{event.name} {event.data['id']}" for event in taken]
            last_id = taken[-1].id
    assert sorted(got) == sorted(expected)


async def publish_slowly(world: World, events: Sequence[Message]) -> None:
    """In transactions of a few."""
    for begin in range(0, len(events), 50):
        await transact(world, events[begin : begin + 50])


async def reset_of(api: Api, last_id: str, why: str) -> None:
    """Coming back is answered by a reset, and goes on live from its id."""
    async with listening(api.client, last_id=last_id) as stream:
        await stream.has(1)
        await publish(api.world, [enriched("after", partition=0)])
        reset, after = await stream.has(2)
    assert (reset.name, reset.data["reason"]) == ("reset", why)
    assert reset.data["message"]
    assert after.data["id"] == "after"
    async with listening(api.client, last_id=reset.id) as again:
        await again.has(1)
    assert again.ids() == ["after"]


async def test_what_is_no_id_of_an_event_is_answered_by_a_reset(api: Api) -> None:
    """Whatever somebody sends, the stream goes on from now."""
    await publish(api.world, [enriched("before")])
    for last_id in ("17", "AQAA", "é", "x" * 5_000):
        await reset_of(api, last_id, "unknown")


async def test_events_that_are_no_longer_kept_are_answered_by_a_reset(api: Api) -> None:
    """Not so where nothing that is gone was missed."""
    early = await left_at(api, enriched("one", partition=0))
    late = await left_at(api, enriched("two", partition=0), enriched("three", partition=1))
    async with administering(api.world) as admin:
        gone = {TopicPartition(api.world.enriched, 0): RecordsToDelete(2)}
        await admin.delete_records(gone)
    async with listening(api.client, last_id=late.last_id) as stream:
        await publish(api.world, [enriched("four", partition=0)])
        await stream.has(1)
    await reset_of(api, early.last_id, "expired")


async def test_an_id_past_the_end_is_answered_by_a_reset(api: Api) -> None:
    """Records it counts are not there any more."""
    had = await left_at(api, enriched("one", partition=0))
    found = position.decode(had.last_id)
    assert found
    await reset_of(api, position.encode(position.advanced(found, (0, 1), 9)), "ahead")


async def test_the_id_of_another_topic_is_answered_by_a_reset(api: Api) -> None:
    """Under the same name too: clients that are there are told, those who come back as well."""
    had = await left_at(api, enriched("one", partition=0))
    async with listening(api.client) as stream:
        async with administering(api.world) as admin:
            await admin.delete_topics([api.world.enriched])
            await until(lambda: is_gone(admin, api.world.enriched))
        await create_topics(api.world.settings(), 2)
        await publish(api.world, [enriched(f"new-{n}", partition=n % 2) for n in range(4)])
        await until(lambda: "reset" in stream.names() and len(stream.ids()) >= 4, 20)
    assert next(e for e in stream.events if e.name == "reset").data["reason"] == "recreated"
    assert {"new-0", "new-1", "new-2", "new-3"} == set(stream.ids())
    await reset_of(api, had.last_id, "foreign")


async def is_gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    """Whether the brokers know it no longer."""
    found = await admin.describe_topics(None)
    return topic not in {one["topic"] for one in found}


async def test_partitions_that_are_added_are_read_from_their_first_event(api: Api) -> None:
    """By clients that are there, and by those who come back with an id from before."""
    had = await left_at(api)
    async with listening(api.client) as stream:
        await grow(api.world, api.world.enriched, 3)
        await publish(api.world, [enriched("first", partition=2)])
        await stream.has(1)
        async with listening(api.client, last_id=had.last_id) as again:
            await again.has(1)
    assert stream.ids() == again.ids() == ["first"]
