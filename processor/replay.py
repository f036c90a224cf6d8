"""`processor replay`: shows dead letters, and sends those that are chosen back to where they came from.

A letter is sent once: that it is done is written in the transaction that sends it.  What is dead when the command starts is looked
at, so a letter that fails again meanwhile waits for the next time.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from processor.failures import Fenced, StartRefused, refusing
from processor.io.kafka import Cluster, quietly
from processor.io.kafka_letters import Box, Letters, Return, way_back
from processor.pure.place import Walk
from processor.pure.replay import NO_LETTERS, Choice, Inputs, Letter, read_letter, replayed
from processor.pure.types import Message, Record
from processor.settings import Settings

BATCH_LETTERS = 500
BATCH_BYTES = 4 << 20

Tell: TypeAlias = Callable[[str], None]


class Asked(Struct, frozen=True):
    """What the command is to do."""

    choice: Choice
    most: int | None = None
    """So many letters are taken; None: all."""


class Tally:
    """What became of the letters that were not done."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        """Shown or sent: by topic, stage and error."""
        self.left = 0
        self.hindered: Counter[str] = Counter()

    def lines(self) -> list[str]:
        """Counts of what was taken, then of what cannot be replayed."""
        taken = [f"{count:>8}  {kind}" for kind, count in self.taken.most_common()]
        hindered = self.hindered.most_common()
        return taken + [f"{count:>8}  cannot be replayed: {why}" for why, count in hindered]


class Replay:
    """One pass over the letters that are not done yet; its methods raise `StartRefused`."""

    def __init__(self, settings: Settings, asked: Asked) -> None:
        self._cluster = Cluster(settings)
        self._letters = Letters(self._cluster)
        self._inputs = Inputs(settings.raw_topic, settings.merge_topic)
        self._asked = asked
        self._found = 0
        self.tally = Tally()

    async def show(self, tell: Tell) -> Sequence[Box]:
        """Tells of every letter that is chosen, a line each, also of those that cannot be replayed; returns where it looked."""
        with quietly(), refusing("the letters cannot be read; try again"):
            boxes = await self._letters.boxes()
            for box in boxes:
                async with aclosing(self._undone(box, Walk(box.place))) as letters:
                    async for letter in letters:
                        tell(str(letter))
                        if not self._is_hindered(letter):
                            self.tally.taken[letter.kind] += 1
        return boxes

    async def send(self, progress: Tell, looked: Sequence[Box] | None = None) -> None:
        """Sends every letter that is chosen, none that came after `looked`; what was sent when it raises is done."""
        with quietly(), _stopping():
            async with way_back(self._cluster, self._letters.group) as back:
                boxes = await self._letters.boxes()
                for box in boxes if looked is None else _as_looked(boxes, looked):
                    await self._empty(box, back, progress)

    async def _empty(self, box: Box, back: Return, progress: Tell) -> None:
        walk, batch = Walk(box.place), _Batch()
        async with aclosing(self._undone(box, walk)) as letters:
            async for letter in letters:
                at, hindered = letter.record.offset, self._is_hindered(letter)
                message = None if hindered else self._message(letter, back)
                if message is None:
                    walk.left(at, letter.pile)
                    continue
                walk.done(at, letter.pile)
                if batch.add(letter, message):
                    await back.send(batch.messages, box, walk.place())
                    self.tally.taken += batch.kinds
                    batch = _Batch()
                    progress(f"{self.tally.taken.total()} letters replayed")
        if batch.messages:
            await back.send(batch.messages, box, walk.place())
            self.tally.taken += batch.kinds

    async def _undone(self, box: Box, walk: Walk) -> AsyncGenerator[Letter, None]:
        """The letters of a partition that are chosen; the walk passes the others."""
        async with aclosing(self._letters.read(box)) as batches:
            async for records in batches:
                for record in records:
                    if self._enough():
                        return
                    if letter := self._chosen(record, walk):
                        self._found += not letter.obstacle
                        yield letter

    def _enough(self) -> bool:
        return self._asked.most is not None and self._found >= self._asked.most

    def _chosen(self, record: Record, walk: Walk) -> Letter | None:
        letter = read_letter(record, self._inputs)
        if letter is None:
            self.tally.hindered["it is no dead letter"] += 1
            walk.left(record.offset, NO_LETTERS)
        elif walk.is_done(record.offset, letter.pile):
            walk.done(record.offset, letter.pile)
        elif not self._asked.choice.has(letter):
            self.tally.left += 1
            walk.left(record.offset, letter.pile)
        else:
            return letter
        return None

    def _is_hindered(self, letter: Letter) -> bool:
        if letter.obstacle:
            self.tally.hindered[letter.obstacle] += 1
        return bool(letter.obstacle)

    def _message(self, letter: Letter, back: Return) -> Message | None:
        message = replayed(letter, back.batches.count(letter.said.topic))
        if back.fits(message):
            return message
        why = f"it does not fit into {message.topic}: raise its max.message.bytes"
        self.tally.hindered[why] += 1
        return None


def _as_looked(boxes: Sequence[Box], looked: Sequence[Box]) -> Sequence[Box]:
    """Without what came since; nothing of a topic that was created again since."""
    ends = {(box.partition, box.topic_id): box.end for box in looked}
    return [
        replace(box, end=min(box.end, ends.get((box.partition, box.topic_id), 0))) for box in boxes
    ]


class _Batch:
    """What the next transaction sends."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.kinds: Counter[str] = Counter()
        self._size = 0

    def add(self, letter: Letter, message: Message) -> bool:
        """Whether it is full now."""
        self.messages.append(message)
        self.kinds[letter.kind] += 1
        self._size += _size(message)
        return len(self.messages) >= BATCH_LETTERS or self._size >= BATCH_BYTES


def _size(message: Message) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in message.headers)
    return len(message.value or b"") + len(message.key or b"") + headers


@contextmanager
def _stopping() -> Iterator[None]:
    """Raises `StartRefused` for every failure of a replay that is under way."""
    with refusing("the replay has stopped; what was sent is done, run it again for the rest"):
        try:
            yield
        except Fenced as error:
            reason = "another `processor replay` has begun and goes on instead of this one"
            raise StartRefused(reason) from error
