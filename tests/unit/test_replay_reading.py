"""What a replay reads, and the batches that it sends, without a Kafka."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, cast

import pytest
from msgspec.structs import replace

from processor.failures import Retryable
from processor.io import kafka_letters
from processor.io.kafka import Cluster, Partition
from processor.io.kafka_letters import Box, Letters, Return
from processor.pure.place import LARGEST, Place, to_metadata
from processor.pure.replay import Choice
from processor.pure.types import Message, Record
from processor.replay import BATCH_BYTES, Asked, Replay, _as_looked, _Batch
from processor.settings import Settings
from tests.oracle_parse import Message as Read
from tests.unit.parse_records import record
from tests.unit.test_replay import dead, letter_of

SETTINGS = Settings.load()
BOX = Box(Partition(SETTINGS.dead_topic, 0), "0123456789abcdef", Place(), 0, 10)


def at(letter: Read, offset: int) -> Read:
    """The same, elsewhere in its partition."""
    return Read(letter.topic, 0, offset, letter.timestamp, letter.key, letter.value, letter.headers)


class Kept:
    """Letters as their topic holds them."""

    def __init__(self, records: Sequence[Record], *boxes: Box) -> None:
        self._records = records
        self._boxes = boxes

    async def boxes(self) -> Sequence[Box]:
        """As they are looked at."""
        return self._boxes

    async def read(self, box: Box) -> AsyncIterator[Sequence[Record]]:
        """From the place on."""
        yield [one for one in self._records if box.place.next <= one.offset < box.end]


class Way:
    """A way back that takes everything."""

    batches: Any

    def __init__(self) -> None:
        self.batches = self
        self.sent = 0
        self.box = BOX

    def count(self, _: str) -> int:
        """Partitions."""
        return 8

    def fits(self, _: Message) -> bool:
        """Each."""
        return True

    async def send(self, messages: Sequence[Message], box: Box, place: Place) -> None:
        """The place is kept where Kafka would take it."""
        assert len(to_metadata(place, box.topic_id)) <= LARGEST
        self.sent += len(messages)
        self.box = replace(box, place=place)


async def emptied(
    records: Sequence[Record], way: Way, environment: Mapping[str, str] = MappingProxyType({})
) -> Replay:
    """A replay of all of them, with the settings of such an environment."""
    replay = Replay(Settings.model_validate(environment), Asked(Choice()))
    replay._letters = cast("Letters", Kept(records))
    box = replace(way.box, end=len(records))
    await replay._empty(box, cast("Return", way), lambda line: None)
    return replay


async def listed(records: Sequence[Record], way: Way, choice: Choice) -> list[str]:
    """What `--list` shows after it."""
    replay, lines = Replay(SETTINGS, Asked(choice)), list[str]()
    replay._letters = cast("Letters", Kept(records, replace(way.box, end=len(records))))
    await replay.show(lines.append)
    return lines


async def test_letters_that_can_never_go_back_do_not_end_a_replay() -> None:
    """However many lie between the others, which all go back, once."""
    chance = random.Random(1)
    kinds = [dead(record(b"{}")), dead(record(b"{}"), "publish"), Read("", 0, 0, 0, None, b"?")]
    kept = [at(chance.choice(kinds), offset) for offset in range(20_000)]
    good = sum(one.value == kinds[0].value for one in kept)
    way = Way()
    replay = await emptied(kept, way)
    assert way.sent == replay.tally.taken.total() == good
    assert replay.tally.hindered.total() == len(kept) - good
    again = await emptied(kept, way)
    assert again.tally.taken.total() == 0
    assert again.tally.hindered == replay.tally.hindered


async def test_letters_of_a_topic_that_the_settings_forgot_go_back_once_they_name_it() -> None:
    """However many lie between the others, none of which goes back again."""
    chance = random.Random(1)
    merge = record(b"{}")._replace(topic="crm.merges")
    kinds = [dead(record(b"{}")), dead(merge, "merge")]
    kept = [at(chance.choice(kinds), offset) for offset in range(20_000)]
    good, way = sum(one.value == kinds[0].value for one in kept), Way()
    forgotten = await emptied(kept, way)
    assert forgotten.tally.taken.total() == way.sent == good
    assert forgotten.tally.hindered.total() == len(kept) - good
    named = await emptied(kept, way, {"MERGE_TOPIC": "crm.merges"})
    assert (named.tally.taken.total(), way.sent) == (len(kept) - good, len(kept))
    assert way.box.place == Place(len(kept))


async def test_letters_whose_events_are_stored_are_listed_whatever_was_replayed() -> None:
    """Each: the smallest of their offsets is the one to go back to."""
    chance = random.Random(1)
    kinds = [dead(record(b"{}")), dead(record(b"{}"), "publish")]
    kept = [at(chance.choice(kinds), offset) for offset in range(20_000)]
    stored, way = sum(one.value == kinds[1].value for one in kept), Way()
    await emptied(kept, way)
    assert len(await listed(kept, way, Choice(stage="publish"))) == stored
    assert await listed(kept, way, Choice(stage="validate")) == []


def test_what_came_after_a_look_is_not_sent() -> None:
    """Nor what a partition holds that was not looked at, or is of another topic of the name."""
    other, again = Partition(BOX.partition.topic, 1), replace(BOX, topic_id="another", end=30)
    boxes = [replace(BOX, end=20), replace(BOX, partition=other), again]
    assert [box.end for box in _as_looked(boxes, [BOX])] == [10, 0, 0]


class Silent:
    """A consumer that a broker, or what was its topic, gives nothing any more."""

    _fetcher = None

    def __init__(self) -> None:
        self._client = self

    async def close(self) -> None:
        """Its connections."""

    async def start(self) -> None:
        """Connects."""

    async def stop(self) -> None:
        """Ends."""

    def assign(self, _: Sequence[Partition]) -> None:
        """Reads these."""

    def seek(self, *_: object) -> None:
        """Goes on there."""

    async def position(self, _: Partition) -> int:
        """Where it was."""
        return 0

    async def getmany(self, *_: Partition, **__: int) -> Mapping[Partition, Sequence[Record]]:
        """Nothing has come by then."""
        await asyncio.sleep(0)
        return {}


class SilentCluster(Cluster):
    """Has no other consumer."""

    def follower(self, partition_bytes: int, fetch_bytes: int) -> Any:
        """As a cluster gives it."""
        return Silent()


async def test_letters_that_do_not_come_are_waited_for_no_longer_than_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The topic or its broker is gone, and the client asks on and on."""
    monkeypatch.setattr(kafka_letters, "ANSWER_S", 0.05)
    letters = Letters(SilentCluster(SETTINGS))
    async with aclosing(letters.read(BOX)) as batches:
        with pytest.raises(Retryable, match="no answer"):
            async for _ in batches:
                pass


@pytest.mark.parametrize(
    "message",
    [
        Message("events.raw", b"k", b"v" * BATCH_BYTES, [], 1, 0),
        Message("events.raw", b"k" * BATCH_BYTES, b"v", [], 1, 0),
        Message("events.raw", b"k", None, [("h", b"v" * BATCH_BYTES)], 1, 0),
        Message("events.raw", None, None, [("h" * BATCH_BYTES, b"")], 1, 0),
    ],
    ids=["value", "key", "header", "name of a header"],
)
def test_a_batch_is_full_of_bytes_wherever_they_are(message: Message) -> None:
    """Memory and the transaction hold all of a message."""
    assert _Batch().add(letter_of(record(b"{}")), message)
