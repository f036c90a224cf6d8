"""Events in Postgres: one call stores the rulings on a batch, and the first committed row of an id is its verdict for ever."""

import secrets
from collections.abc import Sequence

import orjson

from processor.io.postgres import Conflict, Postgres
from processor.ports import Answer, KnownIds, Recorded, StaleRoots, StaleRules, Stored
from processor.pure.origin import timestamp_of
from processor.pure.types import Facts, Root, Ruling

_SEPARATOR = "\x1f"


class Events:
    """The table of events; `record` raises `Retryable` while Postgres is away, and may be called again with the same batch."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """Stores rulings on events of one lane, decided by rule revision `rules`; ids are distinct."""
        source = rulings[0].case.event.record
        newest = max(ruling.case.event.occurred_at for ruling in rulings)
        try:
            rows = await self._postgres.fetch(
                "record", source.topic, source.partition, rules, newest, *_columns(rulings, rules)
            )
        except Conflict as conflict:
            return _conflict(rulings, conflict.detail)
        (_, _, received_at, *_), *known = rows
        return Recorded(received_at, {row[0] - 1: Stored(*row[2:]) for row in known})


def _columns(rulings: Sequence[Ruling], rules: int) -> tuple[object, ...]:
    """Joined columns are rendered, and read there, many times faster than arrays."""
    cases = [ruling.case for ruling in rulings]
    events = [case.event for case in cases]
    facts = [ruling.facts for ruling in rulings]
    texts = (
        [event.org_unit for event in events],
        [event.id for event in events],
        [event.lead_id for event in events],
        ["" if case.root.lead_id == case.event.lead_id else case.root.lead_id for case in cases],
        [event.event_type for event in events],
        [ruling.reason or "" for ruling in rulings],
    )
    return (
        *_joined(texts),
        b"\n".join([event.metadata_json for event in events]).decode(),
        "\n".join([_json(by) if (by := ruling.suppressed_by) else "" for ruling in rulings]),
        "\n".join([_exceeded(fact) if fact.exceeded else "" for fact in facts]),
        _array([event.occurred_at for event in events]),
        _array([event.record.offset for event in events]),
        _array([timestamp_of(event.record) for event in events]),
        _array([case.root.epoch or None for case in cases]),
        _array([None if fact.rules == rules else fact.rules for fact in facts]),
        _array([None if fact.counted else False for fact in facts]),
    )


def _joined(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A separator that no value holds, and the columns joined by it."""
    joined = [_SEPARATOR.join(column) for column in columns]
    if all(text.count(_SEPARATOR) == len(columns[0]) - 1 for text in joined):
        return _SEPARATOR, *joined
    separator = secrets.token_hex(16)
    return separator, *(separator.join(column) for column in columns)


def _array(column: Sequence[int | None]) -> str:
    """As Postgres writes an array; one without elements tells nothing of any event, and is read at once."""
    return "{}" if column.count(None) == len(column) else "{" + _json(column)[1:-1] + "}"


def _exceeded(facts: Facts) -> str:
    return _json({str(revision): burst for revision, burst in facts.exceeded.items()})


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _conflict(rulings: Sequence[Ruling], detail: str) -> StaleRules | StaleRoots | KnownIds:
    said = orjson.loads(detail)
    events = [ruling.case.event for ruling in rulings]
    if "rules" in said:
        return StaleRules()
    if "roots" in said:
        return StaleRoots(
            {(org_unit, lead): Root(*root) for org_unit, lead, *root in said["roots"]}
        )
    known = [((events[n - 1].org_unit, events[n - 1].id), *rest) for n, *rest in said["known"]]
    return KnownIds(
        others=frozenset(key for key, other, *_ in known if other),
        facts={
            key: Facts(
                counted,
                rules,
                {int(revision): burst for revision, burst in (exceeded or {}).items()},
            )
            for key, other, counted, rules, exceeded in known
            if not other
        },
    )
