"""Dead letters on their way back: what a letter says, whether it is chosen, and the record it becomes again."""

import base64
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from processor.pure import jsontext, timestamps
from processor.pure.letters import UNREAD
from processor.pure.origin import OFFSET, PARTITION, TIMESTAMP, TOPIC, Origin, replayed_from
from processor.pure.shown import shown
from processor.pure.types import Message, Record

NO_LETTERS = "-"
"""The pile of what can never go back, whatever the settings are."""
_NO_TIMESTAMP = -1
_ORIGINAL = frozenset((TOPIC, PARTITION, OFFSET, TIMESTAMP))
_Partition = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_STORED = (
    "its event is stored, and again it would be a duplicate: raise max.message.bytes of the enriched topic, and while"
    " no worker runs `processor offsets reset` to its message's offset: it is published, and all behind it once more"
)
_NOT_READ = (
    "its message was never read: that is at the offset it had, for as long as its topic holds it"
)


class Inputs(Struct, frozen=True):
    """The topics there is a way back to."""

    raw: str
    merges: str


class _Said(Struct, frozen=True):
    topic: str
    partition: _Partition
    offset: _Number
    timestamp: _Number | None
    stage: str
    error: str
    reason: str
    payload_base64: str | None
    payload_sha256: str | None = None


class Letter(Struct, frozen=True):
    """A dead letter, and why it cannot be replayed, where it cannot."""

    record: Record
    """The letter's own."""
    said: _Said
    payload: bytes | None
    obstacle: str = ""

    @property
    def pile(self) -> str:
        """Where it lies, as `place` has it: what cannot go back lies in none with what can."""
        never = self.said.payload_sha256 is not None or self.payload == UNREAD
        return NO_LETTERS if never else f"{self.said.topic} {self.said.stage}"

    @property
    def kind(self) -> str:
        """What letters are counted by."""
        return shown(f"{self.said.topic}  {self.said.stage} {self.said.error}")

    def __str__(self) -> str:
        said, own = self.said, self.record
        at = _time(said.timestamp)
        again = " (failed again)" if replayed_from(own.headers) else ""
        hindered = f" (cannot be replayed: {self.obstacle})" if self.obstacle else ""
        return shown(
            f"{own.topic}/{own.partition}/{own.offset}  {said.topic}/{said.partition}/{said.offset}"
            f"  {at}  {said.stage} {said.error}  {said.reason}{again}{hindered}"
        )


class Choice(Struct, frozen=True):
    """Which letters are meant; None and nothing: any."""

    stage: str | None = None
    error: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    org_unit: str | None = None
    since: int | None = None
    """Record timestamps, ms: then or later."""
    until: int | None = None
    """Before."""

    def has(self, letter: Letter) -> bool:
        """Whether the letter is meant."""
        said = letter.said
        wanted = (
            (self.stage, said.stage),
            (self.error, said.error),
            (self.topic, said.topic),
            (self.partition, said.partition),
            (self.offset, said.offset),
        )
        return (
            all(want in (None, have) for want, have in wanted)
            and self._in_time(said.timestamp)
            and (self.org_unit is None or self.org_unit == _org_unit(letter.payload))
        )

    def _in_time(self, at: int | None) -> bool:
        if at is None:
            return self.since is None and self.until is None
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def read_letter(record: Record, inputs: Inputs) -> Letter | None:
    """The letter of a record of the dead topic, None for anything that is none."""
    try:
        said = msgspec.json.decode(record.value or b"", type=_Said)
        text = said.payload_base64
        payload = None if text is None else base64.b64decode(text, validate=True)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Letter(record, said, payload, _obstacle(said, payload, inputs))


def _obstacle(said: _Said, payload: bytes | None, inputs: Inputs) -> str:
    if said.payload_sha256 is not None:
        return "it was too large to keep its payload"
    if said.topic not in (inputs.raw, inputs.merges):
        return f"{said.topic} is no input of this processor"
    if payload == UNREAD:
        return _NOT_READ
    # A merge that is known publishes its row again; an event that another message brought does not.
    return _STORED if (said.stage, said.topic) == ("publish", inputs.raw) else ""


def replayed(letter: Letter, partitions: int) -> Message:
    """The record that is sent, with its first coordinates; `partitions`: of its topic now."""
    said = letter.said
    origin = replayed_from(letter.record.headers) or Origin(
        said.topic, said.partition, said.offset, said.timestamp
    )
    kept = [header for header in letter.record.headers if header[0] not in _ORIGINAL]
    at = _NO_TIMESTAMP if origin.timestamp is None else origin.timestamp
    return Message(
        said.topic,
        letter.record.key,
        letter.payload,
        [
            *kept,
            (TOPIC, origin.topic.encode()),
            (PARTITION, b"%d" % origin.partition),
            (OFFSET, b"%d" % origin.offset),
            (TIMESTAMP, b"%d" % at),
        ],
        _NO_TIMESTAMP if said.timestamp is None else said.timestamp,
        said.partition if 0 <= said.partition < partitions else None,
    )


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "-"
    told = timestamps.EARLIEST <= milliseconds <= timestamps.LATEST
    return timestamps.to_text(milliseconds) if told else str(milliseconds)


def _org_unit(payload: bytes | None) -> object:
    told = jsontext.decode(payload or b"")
    return told.get("org_unit") if isinstance(told, dict) else None
