"""The way of an event: parse, triage, read, decide, record, write, publish.  READ FIRST.

A batch is what one lane read of one partition, in order.  Nothing here remembers anything between batches but beliefs that
`record` checks; Postgres' commit is the point where a verdict becomes true, Redis holds only facts of committed rows, and what is
published is what was stored.  Everything may be repeated until the offset is committed.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from processor import telemetry
from processor.failures import Retryable, Unstorable
from processor.leads import Leads
from processor.outputs import Outputs
from processor.ports import (
    EventKey,
    Events,
    KnownIds,
    Reading,
    Recorded,
    Rulebook,
    StaleRoots,
    StaleRules,
    Windows,
)
from processor.pure.enrich import enriched_row
from processor.pure.parse import parse
from processor.pure.triage import in_parts, looks, slow, triage
from processor.pure.types import (
    Case,
    EnrichedRow,
    Event,
    Facts,
    Message,
    Outcome,
    Record,
    Rejected,
    Rules,
    Ruling,
)
from processor.pure.velocity import decide

_TRIES = 50
_MOST_LOOKS = 25_000
"""Of filters at the events of one decision: half a second of work at most, since others wait for it, in Redis and here."""


class _Doubts(Struct):
    """What `record` has told of a batch."""

    left_out: set[EventKey]
    """Duplicates with another body: they leave no trace."""
    known: dict[EventKey, Facts]
    """Events whose rows did other things to windows than was computed."""

    def counted(self, event: Event) -> bool | None:
        """Whether its row entered windows, where that is known."""
        facts = self.known.get((event.org_unit, event.id))
        return None if facts is None else facts.counted


class Pipeline:
    """Decides, stores and renders batches of raw events."""

    def __init__(
        self,
        events: Events,
        windows: Windows,
        rulebook: Rulebook,
        outputs: Outputs,
        max_future_ms: int,
    ) -> None:
        self._events = events
        self._windows = windows
        self._rulebook = rulebook
        self._outputs = outputs
        self._max_future_ms = max_future_ms
        self._leads = Leads()

    async def process(self, records: Sequence[Record]) -> Outcome:
        """What is left to do for a batch: non-empty, of one partition, in order.  Raises `Retryable`."""
        with telemetry.stage("parse"):
            parsed = [parse(record, self._max_future_ms) for record in records]
        letters = [
            self._outputs.letter(refusal) for refusal in parsed if isinstance(refusal, Rejected)
        ]
        messages = await self._publishable([event for event in parsed if isinstance(event, Event)])
        return Outcome(_in_order(messages, letters), records[-1].offset + 1)

    async def _publishable(self, events: Sequence[Event]) -> list[Message]:
        """Enriched messages of events, and a dead letter for one that Postgres cannot hold.

        Events that are too many for their filters, or among which is one that cannot be held, are two batches.
        """
        try:
            messages = await self._enriched(events) if events else []
        except Unstorable as error:
            messages = None
            if len(events) == 1:
                reason = f"Postgres cannot hold the event ({error.code})."
                refusal = Rejected(events[0].record, "store", "not_storable", reason)
                messages = [self._outputs.letter(refusal)]
        if messages is not None:
            return messages
        half = len(events) // 2
        return await self._publishable(events[:half]) + await self._publishable(events[half:])

    async def _enriched(self, events: Sequence[Event]) -> list[Message] | None:
        """None, and nothing is done, where they are too many for one decision."""
        firsts: dict[EventKey, Event] = {}
        for event in events:
            firsts.setdefault((event.org_unit, event.id), event)
        done = await self._recorded(list(firsts.values()))
        if done is None:
            return None
        rulings, recorded, reading = done
        with telemetry.stage("write"):
            await self._windows.write(reading, [ruling.facts for ruling in rulings])
        _count_duplicates(rulings, recorded, len(events))
        return [
            self._outputs.enriched(ruling.case.event.record, row)
            for n, ruling in enumerate(rulings)
            if (row := _row(ruling, recorded, n))
        ]

    async def _recorded(
        self, events: Sequence[Event]
    ) -> tuple[Sequence[Ruling], Recorded, Reading] | None:
        """Rulings as they are stored, and what they are based on: decided again until nothing of it has changed meanwhile.

        None where the rules make too many looks of the events.
        """
        doubts = _Doubts(left_out=set(), known={})
        for _ in range(_TRIES):
            rules = self._rulebook.rules
            if len(events) > 1 and looks(events, rules) > _MOST_LOOKS:
                return None
            rulings, reading = await self._decided(events, rules, doubts)
            if not rulings:
                return [], Recorded(0, {}), reading
            with telemetry.stage("record"):
                answer = await self._events.record(rulings, rules.revision)
            match answer:
                case Recorded() as recorded:
                    _count_new(rulings, recorded)
                    return rulings, recorded, reading
                case StaleRules():
                    await self._rulebook.reload()
                case StaleRoots(roots):
                    self._leads.learn(roots)
                case KnownIds(others, facts):
                    doubts.left_out |= others
                    doubts.known |= facts
        raise Retryable(
            "postgres", "rules, leads and known events change faster than a batch is decided"
        )

    async def _decided(
        self, events: Sequence[Event], rules: Rules, doubts: _Doubts
    ) -> tuple[list[Ruling], Reading]:
        with telemetry.stage("triage"):
            cases = await self._triaged(events, rules, doubts)
        with telemetry.stage("read"):
            reading = await self._windows.read(cases)
        with telemetry.stage("decide"):
            return decide(cases, reading.seen, doubts.known, rules.revision), reading

    async def _triaged(self, events: Sequence[Event], rules: Rules, doubts: _Doubts) -> list[Case]:
        """What may take long is done in a thread: meanwhile heartbeats go out, and other lanes go on."""
        if not slow(events, rules):
            return self._cases(events, rules, doubts)
        cases: list[Case] = []
        for part in in_parts(events):
            cases += await asyncio.to_thread(self._cases, part, rules, doubts)
        return cases

    def _cases(self, events: Sequence[Event], rules: Rules, doubts: _Doubts) -> list[Case]:
        return [
            triage(
                event,
                self._leads.root(event.org_unit, event.lead_id),
                rules,
                counted=doubts.counted(event),
            )
            for event in events
            if (event.org_unit, event.id) not in doubts.left_out
        ]


def _count_new(rulings: Sequence[Ruling], recorded: Recorded) -> None:
    """Counts the rows of a commit at once: should the batch be decided again, they are known and count no more."""
    new = [ruling for n, ruling in enumerate(rulings) if n not in recorded.known]
    for reason, number in Counter(ruling.reason for ruling in new).items():
        telemetry.EVENTS.labels(reason=reason or "none").inc(number)
        if reason is not None:
            telemetry.DECISIONS.labels(
                kind="metadata" if reason == "metadata_filter" else "velocity"
            ).inc(number)


def _count_duplicates(rulings: Sequence[Ruling], recorded: Recorded, events: int) -> None:
    """Counts, of `events` messages that are done with, those whose id another message had before."""
    same = sum(stored.same_message for stored in recorded.known.values())
    telemetry.DUPLICATES.inc(events - len(rulings) + len(recorded.known) - same)


def _row(ruling: Ruling, recorded: Recorded, n: int) -> EnrichedRow | None:
    """What to publish of a ruling: its row; nothing for a duplicate, and nothing any more of a deleted event."""
    stored = recorded.known.get(n)
    if stored is None:
        return enriched_row(ruling, ruling.reason, ruling.suppressed_by, recorded.received_at)
    if stored.deleted or not stored.same_message:
        return None
    return enriched_row(ruling, stored.reason, stored.suppressed_by, stored.received_at)


def _in_order(messages: Sequence[Message], letters: Sequence[Message]) -> Sequence[Message]:
    """Messages in the order of the records they answer."""
    if not letters:
        return messages
    return sorted([*messages, *letters], key=_offset)


def _offset(message: Message) -> int:
    return message.source.offset if message.source is not None else -1
