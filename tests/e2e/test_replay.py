"""`processor replay`: letters go back once, whatever is chosen, stopped or done at the same time."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord

from processor.failures import StartRefused
from processor.pure.letters import dead_letter
from processor.pure.replay import Choice
from processor.pure.timestamps import to_text
from processor.pure.types import Rejected
from processor.replay import BATCH_LETTERS, Asked, Replay
from tests.e2e.operating import configure
from tests.harness import Message, Worker, World, processor, produce, read_topic, until
from tests.oracle_parse import Message as Bad

pytestmark = [pytest.mark.e2e]
NOON = time.time_ns() // 1_000_000 - 3_600_000
"""Of today: what is older than its topic keeps, Kafka may remove at any moment."""
EVERY = Asked(Choice())


def letter(world: World, offset: int, value: bytes | None = b"{}", error: str = "bad") -> Message:
    """What a worker writes of a message of partition 1."""
    message = Bad(world.raw, 1, offset, NOON + offset, b"k", value)
    written = dead_letter(Rejected(message, "validate", error, "It is bad."), 1_000_000)
    return Message(written, b"k", 0, NOON + offset, [("trace", b"1")])


async def raw(world: World) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    """What the raw topic holds for readers of committed records."""
    return await read_topic(world.kafka, world.raw)


async def replayed(world: World, asked: Asked = EVERY) -> int:
    """How many letters were sent."""
    replay = Replay(world.settings(), asked)
    await replay.send(lambda line: None)
    return replay.tally.taken.total()


async def offsets_of(world: World, count: int) -> list[int]:
    """The original offsets in the raw topic, once there are so many."""
    found = await until(lambda: _at_least(world, count))
    return sorted(int(dict(record.headers)["original-offset"]) for record in found)


async def _at_least(world: World, count: int) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    found = await raw(world)
    return found if len(found) >= count else []


async def test_a_letter_goes_back_as_it_was_and_once(world: World) -> None:
    """The record has its partition, key, value, headers and timestamp; a second replay sends nothing."""
    await world.create_topics(2)
    await produce(world.kafka, world.dead, [letter(world, 5), letter(world, 6, None)])
    assert await replayed(world) == 2
    assert await replayed(world) == 0
    found = await until(lambda: _at_least(world, 2))
    first, second = found
    assert (first.partition, first.key, first.value, first.timestamp) == (1, b"k", b"{}", NOON + 5)
    assert dict(first.headers) == {
        "trace": b"1",
        "original-topic": world.raw.encode(),
        "original-partition": b"1",
        "original-offset": b"5",
        "original-timestamp": b"%d" % (NOON + 5),
    }
    assert (second.value, second.timestamp) == (None, NOON + 6)


async def test_a_letter_that_fails_again_goes_back_with_its_first_coordinates(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """Through real workers: the second letter tells where the message was first."""
    await world.create_topics(1)
    worker = start_worker(world.environment())
    await worker.ready()
    await produce(world.kafka, world.raw, [Message(b"[]", b"k", 0, NOON)])
    assert len(await until(lambda: _letters(world, 1))) == 1
    for times in (1, 2):
        assert processor(world.environment(), "replay").splitlines()[-1].startswith("1 letters")
        found = await until(partial(_letters, world, times + 1))
        assert len(found) == times + 1
        headers = dict(found[-1].headers)
        assert (headers["original-offset"], headers["original-timestamp"]) == (b"0", b"%d" % NOON)
        told = json.loads(found[-1].value or b"")
        assert (told["offset"], told["timestamp"]) == (_offset(times), NOON)
        assert found[-1].timestamp > NOON, "it would be removed with records as old as the message"
    assert len(await raw(world)) == 3


def _offset(times: int) -> int:
    """Of a replayed record: a marker ends each transaction before it."""
    return 1 + 2 * (times - 1)


async def _letters(world: World, count: int) -> list[ConsumerRecord[bytes | None, bytes | None]]:
    found = await read_topic(world.kafka, world.dead)
    return found if len(found) >= count else []


async def test_what_is_not_chosen_waits_for_another_time(world: World) -> None:
    """Choices may overlap and leave holes: each letter goes back once."""
    await world.create_topics(2)
    errors = ["one", "two", "three"]
    letters = [letter(world, n, error=errors[n % 3]) for n in range(30)]
    await produce(world.kafka, world.dead, letters)
    assert await replayed(world, Asked(Choice(error="two"))) == 10
    assert await replayed(world, Asked(Choice(error="two"))) == 0
    assert await replayed(world, Asked(Choice(since=NOON + 10, until=NOON + 20))) == 6
    assert await replayed(world, Asked(Choice(), most=3)) == 3
    assert await replayed(world) == 11
    assert await replayed(world) == 0
    assert await offsets_of(world, 30) == list(range(30))


async def test_many_letters_go_back_in_several_transactions(world: World) -> None:
    """Each has its place, so another replay goes on behind the last one."""
    await world.create_topics(2)
    count = BATCH_LETTERS * 2 + 10
    await produce(world.kafka, world.dead, [letter(world, n) for n in range(count)])
    heard: list[str] = []
    replay = Replay(world.settings(), EVERY)

    def stop(line: str) -> None:
        heard.append(line)
        raise StartRefused("stopped")

    with pytest.raises(StartRefused, match="stopped"):
        await replay.send(stop)
    assert heard == [f"{BATCH_LETTERS} letters replayed"]
    assert await replayed(world) == count - BATCH_LETTERS
    assert await offsets_of(world, count) == list(range(count))


@pytest.mark.fault
async def test_a_replay_that_is_killed_leaves_nothing_sent_twice(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """Its open transaction is aborted by the next one, which goes on behind the last that was committed."""
    await world.create_topics(2)
    count = BATCH_LETTERS * 40
    await produce(world.kafka, world.dead, [letter(world, n) for n in range(count)])
    killed = start_worker(world.environment(), "replay")
    await until(partial(_has_any, world), 20)
    killed.kill()
    sent = await replayed(world)
    assert 0 < sent < count
    assert await offsets_of(world, count) == list(range(count))


async def _has_any(world: World) -> bool:
    return bool(await raw(world))


async def test_of_two_replays_at_once_one_goes_on(world: World) -> None:
    """The other is fenced and says so; each letter goes back once."""
    await world.create_topics(2)
    count = BATCH_LETTERS * 3
    await produce(world.kafka, world.dead, [letter(world, n) for n in range(count)])
    both = await asyncio.gather(  # noqa: TID251 - what each of them raised is looked at
        replayed(world), replayed(world), return_exceptions=True
    )
    said = [str(one) for one in both if isinstance(one, StartRefused)]
    sent = [one for one in both if isinstance(one, int)]
    assert len(said) + len(sent) == 2
    assert sent
    assert all("another `processor replay` has begun" in line for line in said)
    await replayed(world)
    assert await offsets_of(world, count) == list(range(count))


async def test_what_cannot_go_back_is_told_and_not_done(world: World) -> None:
    """Payloads that were left out, other topics, and what is no letter at all."""
    await world.create_topics(2)
    message = Bad(world.raw, 1, 1, NOON, b"k", b"x" * 2000)
    refusal = Rejected(message, "parse", "bad_json", "It is bad.")
    large = Message(dead_letter(refusal, 1000), b"k", 0, NOON)
    elsewhere = Message((letter(world, 2).value or b"").replace(b".raw", b".war"), b"k", 0, NOON)
    await produce(
        world.kafka, world.dead, [large, elsewhere, Message(b"?", None, 0), letter(world, 3)]
    )
    for sent in (1, 0):
        replay = Replay(world.settings(), EVERY)
        await replay.send(lambda line: None)
        assert replay.tally.taken.total() == sent
        assert dict(replay.tally.hindered) == {
            "it was too large to keep its payload": 1,
            f"{world.id}.war is no input of this processor": 1,
            "it is no dead letter": 1,
        }
    assert await offsets_of(world, 1) == [3]


async def test_a_record_that_no_longer_fits_its_topic_is_told(world: World) -> None:
    """With the headers of a replay it is larger than it was; the others go back."""
    await world.create_topics(2)
    await configure(world, world.raw, max_message_bytes="2000")
    full = letter(world, 1, b"x" * 1_900)
    await produce(world.kafka, world.dead, [full, letter(world, 2)])
    replay = Replay(world.settings(), EVERY)
    await replay.send(lambda line: None)
    assert list(replay.tally.hindered) == [
        f"it does not fit into {world.raw}: raise its max.message.bytes"
    ]
    assert await offsets_of(world, 1) == [2]


async def test_an_event_that_did_not_fit_is_published_once_its_offset_is_reset(
    world: World, start_worker: Callable[..., Worker]
) -> None:
    """The way that a list names: a replay would make a duplicate of it."""
    await world.create_topics(1)
    await configure(world, world.enriched, max_message_bytes="2000")
    worker = start_worker(world.environment())
    await worker.ready()
    body = {"org_unit": "acme", "lead_id": "l", "event_type": "T", "metadata": {"x": "y" * 3_000}}
    await produce(world.kafka, world.raw, [Message(json.dumps(body).encode(), b"l", 0, NOON)])
    await until(partial(_letters, world, 1))
    shown = processor(world.environment(), "replay", "--list").splitlines()
    assert "`processor offsets reset` to its message's offset: it is published" in shown[0]
    assert await replayed(world) == 0
    await configure(world, world.enriched, max_message_bytes="1000000")
    assert await worker.stop() == 0
    asked = ("--topic", world.raw, "--partition", "0", "--to", "0")
    processor(world.environment(), "offsets", "reset", *asked)
    await start_worker(world.environment()).ready()
    (published,) = await until(partial(read_topic, world.kafka, world.enriched))
    assert json.loads(published.value or b"")["metadata"] == body["metadata"]


async def test_a_list_shows_letters_and_sends_none(world: World) -> None:
    """A line each, then how many there are of each kind."""
    await world.create_topics(2)
    await produce(world.kafka, world.dead, [letter(world, n, error="bad") for n in range(2)])
    shown = processor(world.environment(), "replay", "--list", "--error", "bad").splitlines()
    assert shown == [
        f"{world.dead}/0/0  {world.raw}/1/0  {to_text(NOON)}  validate bad  It is bad.",
        f"{world.dead}/0/1  {world.raw}/1/1  {to_text(NOON + 1)}  validate bad  It is bad.",
        f"       2  {world.raw}  validate bad",
        "2 letters to replay, 0 not chosen",
    ]
    assert await raw(world) == []


def test_without_kafka_it_is_refused_with_one_line(world: World) -> None:
    """Exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "processor", "replay"],
        check=False,
        capture_output=True,
        text=True,
        env={**world.environment(), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert done.stderr.startswith("processor: cannot use Kafka at 127.0.0.1:1")
    assert "Traceback" not in done.stderr
