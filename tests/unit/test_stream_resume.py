"""Coming back to the live stream while the topic grows, or becomes another one: nothing twice, nothing left out, every id right."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.api.auth import Principal
from processor.api.stream_client import Client
from processor.api.stream_hub import Hub
from processor.api.stream_resume import NEAR, resume
from processor.io.pages import Page
from processor.pure import position
from processor.pure.frames import Read, Wanted
from processor.pure.position import Lost, Place, Position, Topic, adopted, advanced, behind

FIRST, SECOND = b"first-", b"second"
ACME = Principal("acme", "reader", frozenset(), "token", None)


class Log:
    """A topic, its tail, which has read all of it, and the pages of what was before."""

    def __init__(self, partitions: int) -> None:
        self.records: list[list[Read]] = []
        self.position = Position((Topic(FIRST, ()),))
        self.hub = Hub(cast("Any", self), cast("Any", self), cast("Any", None))
        self.meanwhile: Callable[[], object] = int
        """Done while a page is read."""
        self.page = 3
        """Records of each partition that are read at once, at most."""
        for _ in range(partitions):
            self.grow()

    def grow(self) -> None:
        """One partition more."""
        self.records.append([])
        (topic,) = self.position.topics
        self.position = Position((Topic(topic.identity, (*topic.nexts, 0)),))

    def publish(self, partition: int) -> None:
        """An event, which live clients are given."""
        place = 0, partition
        offset = self.position.next(place)
        event = {
            "id": f"{partition}-{offset}",
            "lead_id": "lead",
            "event_type": "Click",
            "suppression_reason": None,
            "created_at": "2026-01-01T00:00:00.000Z",
            "metadata": {"page": "/"},
        }
        record = Read(place, offset, [("org-unit", b"acme")], msgspec.json.encode(event))
        self.records[partition].append(record)
        before = self.position
        self.position = advanced(before, place, offset + 1)
        self.hub.read(before, record)

    def create_again(self) -> None:
        """Another topic under the name, as long as the first one."""
        (topic,) = self.position.topics
        self.position = Position((Topic(SECOND, topic.nexts),))
        self.hub.lost("recreated")

    async def reached(self, since: Position) -> "Position | Lost":
        """As `Tail`."""
        return adopted(since, self.position)

    async def read(self, since: Position, until: Position, mine: Callable[[Read], bool]) -> Page:
        """As `Pages`."""
        await asyncio.sleep(0)
        found: list[Read] = []
        reached = since
        for (number, partition), (first, after) in behind(since, until).items():
            last = min(after, first + self.page)
            found += filter(mine, self.records[partition][first:last])
            reached = advanced(reached, (number, partition), last)
        self.meanwhile()
        return Page(found, reached)


async def resumed(log: Log, since: Position) -> list[tuple[str, str, Position]]:
    """What a client gets that comes back: the name, the data and the id of each event."""
    client, text, written = Client(ACME, Wanted()), bytearray(), asyncio.Event()

    async def write() -> None:
        while True:
            await client.something.wait()
            part = client.take()
            text.extend(part)
            if not part:
                written.set()

    writing = asyncio.create_task(write())
    await resume(log.hub, client, since)
    written.clear()
    client.something.set()
    await written.wait()
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    return [_event(frame) for frame in text.decode().split("\n\n")[:-1]]


def _event(frame: str) -> tuple[str, str, Position]:
    fields = dict(line.split(": ", 1) for line in frame.split("\n"))
    found = position.decode(fields["id"])
    assert found
    return fields["event"], fields["data"], found


def _place(data: str) -> tuple[Place, int]:
    partition, offset = msgspec.json.decode(data)["id"].split("-")
    return (0, int(partition)), int(offset)


@given(st.data())
def test_a_client_gets_each_event_once_however_the_topic_grows_meanwhile(
    data: st.DataObject,
) -> None:
    """In the order of its partition, and each id is exactly what was had: to come back with it is to miss nothing."""
    far = data.draw(st.booleans(), "more than may be left when a client joins")
    log = Log(data.draw(st.integers(1, 3)))
    log.page = NEAR // 4 if far else 3
    for n in range(2 * NEAR if far else data.draw(st.integers(0, 15))):
        log.publish(n % len(log.records))
    (topic,) = log.position.topics
    known = topic.nexts[: data.draw(st.integers(1, len(topic.nexts)))]
    had_before = tuple(0 if far else data.draw(st.integers(0, n)) for n in known)
    since = Position((Topic(FIRST, had_before),))
    changes = iter(data.draw(st.lists(st.sampled_from(["grow", "publish"]), max_size=20)))

    def meanwhile() -> None:
        for _ in range(data.draw(st.integers(0, 4))):
            change = next(changes, None)
            if change == "grow":
                log.grow()
            elif change == "publish":
                log.publish(data.draw(st.integers(0, len(log.records) - 1)))

    log.meanwhile = meanwhile
    got = asyncio.run(resumed(log, since))
    had: Counter[Place] = Counter()
    for name, said, after in got:
        place, offset = _place(said)
        assert (name, offset) == ("new_event", since.next(place) + had[place])
        had[place] += 1
        assert all(after.next(p) == since.next(p) + had[p] for p in log.position.places)
    assert all(since.next(p) + had[p] == log.position.next(p) for p in log.position.places)


@pytest.mark.parametrize("pages", [1, 2, 3])
def test_a_client_is_told_where_the_topic_was_created_again_meanwhile(pages: int) -> None:
    """Although the other topic is as long; and then it has what comes."""
    log = Log(1)
    for _ in range(9):
        log.publish(0)
    left = iter(range(pages))

    def meanwhile() -> None:
        if next(left, None) == pages - 1:
            log.create_again()
            log.publish(0)

    log.meanwhile = meanwhile
    got = asyncio.run(resumed(log, Position((Topic(FIRST, (0,)),))))
    names = [name for name, *_ in got]
    assert "reset" in names
    assert names.index("reset") <= 3 * pages
    assert got[-1][2] == log.position
