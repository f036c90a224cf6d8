"""What is published: enriched events and dead letters, as messages."""

from collections.abc import Callable

from msgspec import Struct

from processor.pure.enrich import enriched, headers
from processor.pure.letters import dead_letter, fits
from processor.pure.types import EnrichedRow, Message, Record, Rejected


class Outputs(Struct, frozen=True):
    """Where results go, and how they look there."""

    enriched_topic: str
    dead_topic: str
    max_bytes: Callable[[str], int]
    """The largest record a topic takes."""

    def enriched(self, record: Record, row: EnrichedRow) -> Message:
        """The enriched event of a row, with its record's timestamp, keyed by the surviving lead."""
        key = row.lead_id.encode()
        partition = record.partition if key == record.key else None
        return Message(
            self.enriched_topic,
            key,
            enriched(row),
            headers(row),
            record.timestamp,
            partition,
            source=record,
        )

    def letter(self, refusal: Rejected) -> Message:
        """The dead letter of a record, with its key and headers, or without where they alone are too large for its topic.

        Its own timestamp is that of its publication: it is kept for as long as letters are, however old its record is.
        """
        record = refusal.record
        limit = self.max_bytes(self.dead_topic)
        value = dead_letter(refusal, limit)
        whole = fits(record, value, limit)
        return Message(
            self.dead_topic,
            record.key if whole else None,
            value,
            record.headers if whole else (),
            None,
            record.partition,
            source=record,
            stage=refusal.stage,
        )

    def too_large(self, message: Message) -> Message:
        """What is published instead of a message its topic does not take; a dead letter is returned as it is."""
        if message.topic == self.dead_topic or message.source is None:
            return message
        limit = self.max_bytes(message.topic)
        reason = (
            f"The enriched event does not fit into the {limit} bytes that {message.topic} takes."
        )
        return self.letter(Rejected(message.source, "publish", "message_too_large", reason))
