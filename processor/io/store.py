"""Events in Postgres: one call stores the rulings on a batch, and the first committed row of an id is its verdict for ever."""

from collections.abc import Sequence

import orjson

from processor.io.postgres import Conflict, Postgres
from processor.ports import Answer, KnownIds, Recorded, StaleRoots, StaleRules, Stored
from processor.pure.types import Facts, Root, Ruling


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
                "record", source.topic, source.partition, rules, newest, *_columns(rulings)
            )
        except Conflict as conflict:
            return _conflict(rulings, conflict.detail)
        (_, _, received_at, *_), *known = rows
        return Recorded(received_at, {row[0] - 1: Stored(*row[2:]) for row in known})


def _columns(rulings: Sequence[Ruling]) -> tuple[list[object], ...]:
    cases = [ruling.case for ruling in rulings]
    events = [case.event for case in cases]
    return (
        [event.org_unit for event in events],
        [event.id for event in events],
        [event.lead_id for event in events],
        [case.root.lead_id for case in cases],
        [case.root.epoch for case in cases],
        [event.event_type for event in events],
        [event.metadata_json.decode() for event in events],
        [ruling.reason for ruling in rulings],
        [_json(ruling.suppressed_by) for ruling in rulings],
        [event.occurred_at for event in events],
        [event.record.offset for event in events],
        [_timestamp(event.record.timestamp) for event in events],
        [ruling.facts.counted for ruling in rulings],
        [ruling.facts.rules for ruling in rulings],
        [_json({str(k): v for k, v in ruling.facts.exceeded.items()} or None) for ruling in rulings],
    )


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _timestamp(timestamp: int | None) -> int | None:
    return timestamp if timestamp is not None and timestamp >= 0 else None


def _conflict(rulings: Sequence[Ruling], detail: str) -> StaleRules | StaleRoots | KnownIds:
    said = orjson.loads(detail)
    events = [ruling.case.event for ruling in rulings]
    if "rules" in said:
        return StaleRules()
    if "roots" in said:
        named = [(events[n - 1], Root(root, epoch)) for n, root, epoch in said["roots"]]
        return StaleRoots({(event.org_unit, event.lead_id): root for event, root in named})
    known = [((events[n - 1].org_unit, events[n - 1].id), *rest) for n, *rest in said["known"]]
    return KnownIds(
        others=frozenset(key for key, other, *_ in known if other),
        facts={
            key: Facts(counted, rules, {int(revision): burst for revision, burst in (exceeded or {}).items()})
            for key, other, counted, rules, exceeded in known
            if not other
        },
    )
