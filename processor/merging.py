"""The way of a merge: parse, apply, publish its event.  Rows move later, in the background: readers need not wait for them."""

from collections.abc import Awaitable, Callable, Sequence

import orjson
from msgspec import Raw

from processor import telemetry
from processor.failures import Unstorable
from processor.io.merges import Merged, MergeEvent
from processor.outputs import Outputs
from processor.pure.parse import parse_merge
from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow, MergeCommand, Message, Outcome, Record, Rejected


class Merging:
    """Applies merge commands one by one, in the order of their partition."""

    def __init__(
        self, apply: Callable[[MergeCommand], Awaitable[Merged]], outputs: Outputs
    ) -> None:
        self._apply = apply
        self._outputs = outputs

    async def process(self, records: Sequence[Record]) -> Outcome:
        """What is left to do for a batch: non-empty, of one partition, in order.  Raises `Retryable`; may be repeated."""
        messages = []
        for record in records:
            message = await self._answer(record)
            if message is not None:
                messages.append(message)
        return Outcome(messages, records[-1].offset + 1)

    async def _answer(self, record: Record) -> Message | None:
        command = parse_merge(record)
        if isinstance(command, Rejected):
            return self._outputs.letter(command)
        try:
            merged = await self._apply(command)
        except Unstorable as error:
            reason = f"Postgres cannot hold the merge ({error.code})."
            return self._outputs.letter(Rejected(record, "merge", "not_storable", reason))
        if merged.named and not merged.repeated:
            telemetry.MERGES.labels(kind=command.kind).inc()
        return None if merged.event is None else self._outputs.enriched(record, _row(merged.event))


def _row(event: MergeEvent) -> EnrichedRow:
    return EnrichedRow(
        id=event.id,
        org_unit=event.org_unit,
        lead_id=event.lead_id,
        original_lead_id=event.original_lead_id,
        event_type=event.event_type,
        metadata=Raw(orjson.dumps(event.metadata)),
        suppression_reason=None,
        created_at=to_text(event.occurred_at),
        received_at=to_text(event.received_at),
        suppressed_by=None,
    )
