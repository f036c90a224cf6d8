"""What a worker does with Kafka, seen from outside: exit codes, lines, outputs, offsets."""

import asyncio
import json
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.record.util import calc_crc32c

from processor.embedded import Stack
from processor.failures import StartRefused
from processor.io.kafka_offsets import reset_offset
from tests.e2e.faulty import (
    Feed,
    Start,
    all_published,
    numbered,
    published,
    start_faulty,
    struck,
    telling,
)
from tests.e2e.left_open import leave_open
from tests.e2e.operating import administering, grow
from tests.harness import Message, Worker, World, produce, read_topic, until

__all__ = ["start_faulty"]

pytestmark = [pytest.mark.e2e]


async def committed(world: World, partition: int) -> int:
    """The group's offset in a partition of the raw topic; -1 without one."""
    source = TopicPartition(world.raw, partition)
    async with administering(world) as client:
        offsets = await client.list_consumer_group_offsets(world.group, partitions=[source])
        return int(offsets[source].offset)


def events(worker: Worker, name: str) -> list[dict[str, object]]:
    """The log lines of that event."""
    lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


async def test_a_missing_topic_refuses_the_start_with_one_line(
    world: World, start_faulty: Start
) -> None:
    """It names the command that creates it."""
    worker = start_faulty(world)
    assert await worker.ended() == 2
    assert worker.output == f"topic {world.raw} is missing; run `processor topics create`\n"


async def test_an_unreachable_broker_refuses_the_start_with_one_line(
    world: World, start_faulty: Start
) -> None:
    """It names the variable to check."""
    worker = start_faulty(world, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert await worker.ended() == 2
    assert worker.output.count("\n") == 1
    assert worker.output.startswith("cannot use Kafka at 127.0.0.1:1: ")
    assert "KAFKA_BOOTSTRAP_SERVERS" in worker.output


async def test_messages_of_both_topics_keep_key_timestamp_and_their_partition(
    world: World, start_faulty: Start
) -> None:
    """Where the number of partitions is the same, the input's partition is the output's."""
    await world.create_topics(3)
    at = time.time_ns() // 1_000_000 - 3_600_000
    sent = [Message(b"a", b"k", 2, at), Message(b"b", None, 1, at + 1)]
    await produce(world.kafka, world.raw, sent)
    await produce(world.kafka, world.merges, [Message(b"c", b"k", 0, at + 2)])
    start_faulty(world)
    await all_published(world, 3)
    found = await read_topic(world.kafka, world.enriched)
    assert {(r.value, r.key, r.timestamp) for r in found} == {
        (b"a", b"k", at),
        (b"b", None, at + 1),
        (b"c", b"k", at + 2),
    }
    assert {r.value: r.partition for r in found} | {b"c": 0} == {b"a": 2, b"b": 1, b"c": 0}


async def test_at_least_once_loses_nothing_when_workers_are_killed(
    world: World, start_faulty: Start, tmp_path: Path
) -> None:
    """Outputs may repeat, but none is missing."""
    await world.create_topics()
    guarantee = {"PROCESSING_GUARANTEE": "at_least_once", "FAULT_FOLDER": str(tmp_path)}
    workers = [start_faulty(world, **guarantee) for _ in range(2)]
    feed = Feed(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        for step in ("mid_sends", "after_sends"):
            dead = await struck(tmp_path, step, workers)
            assert await dead.ended() == -signal.SIGKILL
            workers.append(start_faulty(world, **guarantee))
        await workers[-1].ready()
        feed.end()
    await all_published(world, feed.count)
    assert [await worker.stop() for worker in workers if worker.running] == [0, 0]


async def test_a_message_its_topic_does_not_take_becomes_a_dead_letter(
    world: World, start_faulty: Start
) -> None:
    """It is found before anything is sent, so its neighbours are published and the lane goes on."""
    await world.create_topics(1)
    values = [b"one", b"size 1048576", b"two"]
    await produce(world.kafka, world.raw, [Message(v, b"k", 0) for v in values])
    start_faulty(world)
    found = await all_published(world, 2)
    assert dict(found) == {b"one": 1, b"two": 1}
    dead = await read_topic(world.kafka, world.dead)
    assert [r.value for r in dead] == [b"0:1"]


async def test_a_header_name_that_is_no_text_holds_up_nothing(
    world: World, start_faulty: Start
) -> None:
    """Kafka takes any bytes there, and aiokafka's reader would raise for ever."""
    await world.create_topics(1)
    producer = AIOKafkaProducer(bootstrap_servers=world.kafka)
    await producer.start()
    batch = producer.create_batch()
    for value, headers in ((b"before", []), (b"bad", [("zz", b"v")]), (b"after", [])):
        batch.append(timestamp=None, key=b"k", value=value, headers=headers)
    buffer = bytearray(bytes(batch._build()).replace(b"zz", b"\xff\xfe"))
    struct.pack_into(">I", buffer, 17, calc_crc32c(bytes(buffer[21:])))
    batch._buffer = buffer
    await (await producer.send_batch(batch, world.raw, partition=0))
    await producer.stop()
    start_faulty(world)
    assert dict(await all_published(world, 3)) == {b"before": 1, b"bad": 1, b"after": 1}


async def test_a_dead_letter_that_cannot_be_written_stops_the_lane(
    world: World, start_faulty: Start
) -> None:
    """Nothing behind it is published: a bad message is never skipped; other lanes go on."""
    await world.create_topics(2)
    start = start_faulty(world, DEAD_LETTER_BYTES="2200000")
    bad = [Message(v, b"k", 0) for v in (b"size 1048576", b"behind")]
    await produce(world.kafka, world.raw, [*bad, Message(b"other", b"k", 1)])
    assert dict(await all_published(world, 1)) == {b"other": 1}
    await until(lambda: events(start, "lane_stopped"))
    assert "does not fit" in str(events(start, "lane_stopped")[0]["reason"])
    assert await committed(world, 0) == -1


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
async def test_an_offset_that_is_no_longer_held_stops_its_lane_until_it_is_reset(
    world: World, start_faulty: Start, guarantee: str
) -> None:
    """With an alert that names the command; the others go on, and the lane takes up without a restart."""
    await world.create_topics(2)
    more = {"PROCESSING_GUARANTEE": guarantee}
    first = start_faulty(world, **more)
    await produce(world.kafka, world.raw, [Message(b"a%d" % n, b"k", n % 2) for n in range(4)])
    await all_published(world, 4)
    assert await first.stop() == 0
    lost = [Message(b"lost%d" % n, b"k", 0) for n in range(3)]
    await produce(world.kafka, world.raw, [*lost, Message(b"kept", b"k", 0)])
    await produce(world.kafka, world.raw, [Message(b"other", b"k", 1)])
    async with administering(world) as client:
        await client.delete_records({TopicPartition(world.raw, 0): RecordsToDelete(5)})
    second = start_faulty(world, **more)
    assert b"other" in await all_published(world, 5)
    stopped = await until(lambda: events(second, "lane_stopped"))
    assert f"processor offsets reset --topic {world.raw} --partition 0" in str(stopped[0]["reason"])
    metrics = await second.metrics()
    assert metrics[f'processor_stopped_lanes{{partition="0",topic="{world.raw}"}}'] == 1
    assert await reset_offset(world.settings(**more), world.raw, 0, "earliest") == 5
    assert b"kept" in await all_published(world, 6)
    assert b"lost0" not in await all_published(world, 6)
    await second.ready()


async def test_a_reset_fences_a_running_lane_which_goes_on_from_there(
    world: World, start_faulty: Start
) -> None:
    """The operator's offset wins over the worker's."""
    await world.create_topics(1)
    worker = start_faulty(world)
    await produce(world.kafka, world.raw, [Message(b"a%d" % n, b"k", 0) for n in range(4)])
    await all_published(world, 4)
    assert await reset_offset(world.settings(), world.raw, 0, "2") == 2
    await produce(world.kafka, world.raw, [Message(b"b", b"k", 0)])
    found = await all_published(world, 5)
    assert dict(found) == {b"a0": 1, b"a1": 1, b"a2": 2, b"a3": 2, b"b": 1}
    assert events(worker, "lane_fenced")


async def test_a_reset_that_a_running_lane_would_commit_over_is_refused(
    world: World, start_faulty: Start
) -> None:
    """With at_least_once nothing fences it; once the workers have left it is done."""
    await world.create_topics(1)
    settings = world.settings(PROCESSING_GUARANTEE="at_least_once")
    worker = start_faulty(world, PROCESSING_GUARANTEE="at_least_once")
    await worker.ready()
    with pytest.raises(StartRefused, match="stop the workers"):
        await reset_offset(settings, world.raw, 0, "earliest")
    await produce(world.kafka, world.raw, [Message(b"a", b"k", 0), Message(b"b", b"k", 0)])
    await all_published(world, 2)
    with pytest.raises(StartRefused, match="stop the workers"):
        await reset_offset(settings, world.raw, 0, "1")
    assert await worker.stop() == 0
    assert await reset_offset(settings, world.raw, 0, "1") == 1
    assert await committed(world, 0) == 1


async def test_a_reset_of_a_topic_that_workers_do_not_read_is_refused(world: World) -> None:
    """The sentence names what to do instead."""
    instead = {
        world.dead: "`processor replay`",
        world.enriched: "engagement_places",
        "x": f"allowed: {world.raw} and {world.merges}",
    }
    for topic, todo in instead.items():
        with pytest.raises(StartRefused, match=rf"does not read {topic}; .*{todo}"):
            await reset_offset(world.settings(), topic, 0, "earliest")


async def test_a_reset_to_an_offset_that_is_not_held_is_refused(world: World) -> None:
    """The sentence says what there is."""
    await world.create_topics(1)
    with pytest.raises(StartRefused, match="allowed: earliest, latest or 0 to 0"):
        await reset_offset(world.settings(), world.raw, 0, "7")
    with pytest.raises(StartRefused, match="has no partition 9"):
        await reset_offset(world.settings(), world.raw, 9, "latest")


async def test_a_defect_ends_the_process_after_the_other_lanes(
    world: World, start_faulty: Start
) -> None:
    """Exit code 1 and one error with its traceback; what was not committed is redelivered."""
    await world.create_topics(2)
    worker = start_faulty(world)
    await worker.ready()
    await produce(world.kafka, world.raw, [Message(b"raise", b"k", 0), Message(b"v", b"k", 1)])
    assert await worker.ended() == 1
    failures = events(worker, "worker_failed")
    assert len(failures) == 1
    assert "ValueError: a defect" in str(failures[0]["exception"])
    assert await committed(world, 0) == -1


async def test_a_dependency_that_is_away_is_waited_for_and_said_once(
    world: World, start_faulty: Start
) -> None:
    """One line when it begins, one when it ends; nothing is lost or skipped."""
    await world.create_topics(1)
    worker = start_faulty(world)
    await produce(world.kafka, world.raw, [Message(b"retry 5", b"k", 0), Message(b"v", b"k", 0)])
    assert dict(await all_published(world, 2)) == {b"retry 5": 1, b"v": 1}
    assert [e["dependency"] for e in events(worker, "dependency_away")] == ["postgres"]
    assert [e["dependency"] for e in events(worker, "dependency_back")] == ["postgres"]
    metrics = await worker.metrics()
    assert metrics['processor_waiting_seconds_total{dependency="postgres"}'] > 0.5


@pytest.fixture
def own_kafka(world: World, stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, World]]:
    """A broker that nobody else has, with no topics but those of the test: it is killed."""
    others = {"REDIS_URL": stack.redis, "DATABASE_URL": stack.postgres}
    with Stack(tmp_path / "own", others) as own:
        yield own, replace(world, kafka=own.kafka)


@pytest.mark.fault
@pytest.mark.timeout(180)
async def test_a_broker_that_dies_under_load_is_waited_for(
    own_kafka: tuple[Stack, World], start_faulty: Start
) -> None:
    """The worker stays, says once that it waits, and each input has one output when it is back."""
    own, world = own_kafka
    await world.create_topics()
    worker = start_faulty(world)
    await worker.ready()
    await produce(world.kafka, world.raw, numbered(20_000))
    await until(lambda: metric(worker, "processor_batch_events_count"))
    own.kill("kafka")
    await until(lambda: events(worker, "dependency_away"), 30)
    await asyncio.to_thread(own.start_one, "kafka")
    with telling(worker):
        once(await all_published(world, 20_000, 90))
        await produce(world.kafka, world.raw, numbered(1, 20_000))
        once(await all_published(world, 20_001))
    assert await worker.stop() == 0


async def test_what_a_broker_has_forgotten_to_end_is_ended_by_the_lane(
    own_kafka: tuple[Stack, World], start_faulty: Start
) -> None:
    """It would wait for ever for its offset, and every reader of the output for what follows."""
    _, world = own_kafka
    await world.create_topics(1)
    await produce(world.kafka, world.raw, numbered(3))
    await leave_open(world, numbered(1)[0], next_offset=1)
    assert await published(world) == {}
    worker = start_faulty(world)
    with telling(worker):
        once(await all_published(world, 3))
    assert len(events(worker, "transaction_settled")) == 1


def once(found: Mapping[bytes | None, int]) -> None:
    """Nothing is published twice."""
    twice = sorted(str(value) for value, times in found.items() if times != 1)
    assert not twice, f"{len(twice)} published twice, {twice[:3]} to {twice[-1]}"


async def test_partitions_added_while_a_worker_runs_get_lanes(
    world: World, start_faulty: Start
) -> None:
    """Without a restart, by the metadata that the client refreshes; from their first record on."""
    await world.create_topics(1)
    worker = start_faulty(world)
    await worker.ready()
    await grow(world, world.raw, 3)
    await produce(world.kafka, world.raw, [Message(b"p%d" % n, b"k", n) for n in range(3)])
    assert set((await all_published(world, 3)).values()) == {1}


async def test_a_batch_that_outlasts_the_drain_is_abandoned_and_redelivered(
    world: World, start_faulty: Start
) -> None:
    """The worker still ends in time, with exit code 0; nothing of the batch is visible."""
    await world.create_topics(1)
    worker = start_faulty(world)
    await worker.ready()
    await produce(world.kafka, world.raw, [Message(b"slow 600", b"k", 0)])
    await until(lambda: lag(worker, world))
    assert await worker.stop(20) == 0
    assert await committed(world, 0) == -1


async def test_a_second_signal_abandons_everything_at_once(
    world: World, start_faulty: Start
) -> None:
    """Whoever asks twice does not want to wait."""
    await world.create_topics(1)
    worker = start_faulty(world)
    await worker.ready()
    await produce(world.kafka, world.raw, [Message(b"slow 600", b"k", 0)])
    await until(lambda: lag(worker, world))
    worker.send(signal.SIGTERM)
    await until(lambda: events(worker, "worker_drains"))
    worker.send(signal.SIGTERM)
    assert await worker.ended(2) == 128 + signal.SIGTERM


async def lag(worker: Worker, world: World) -> float:
    """How many records of the first partition the worker says are not committed."""
    return await metric(worker, f'processor_lag_records{{partition="0",topic="{world.raw}"}}')


async def metric(worker: Worker, name: str) -> float:
    """A sample; 0 without it."""
    return (await worker.metrics()).get(name, 0)
