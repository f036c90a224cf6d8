"""Events in Postgres: one call stores the rulings on a batch, and the first committed row of an id is its verdict for ever."""

from collections.abc import Sequence

import orjson

from processor.io.postgres import Conflict, Postgres
from processor.ports import Answer, KnownIds, Recorded, StaleRoots, StaleRules, Stored
from processor.pure.origin import timestamp_of
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
                "record", source.topic, source.partition, rules, newest, *_columns(rulings, rules)
            )
        except Conflict as conflict:
            return _conflict(rulings, conflict.detail)
        (_, _, received_at, *_), *known = rows
        return Recorded(received_at, {row[0] - 1: Stored(*row[2:]) for row in known})


def _columns(rulings: Sequence[Ruling], rules: int) -> tuple[str, ...]:
    events = [ruling.case.event for ruling in rulings]
    rare = [told for n, ruling in enumerate(rulings, 1) if len(told := _rare(n, ruling, rules)) > 1]
    return (
        _json([event.org_unit for event in events]),
        _json([event.id for event in events]),
        _json([event.lead_id for event in events]),
        _json([event.event_type for event in events]),
        (b"[" + b",".join([event.metadata_json for event in events]) + b"]").decode(),
        _json([event.occurred_at for event in events]),
        _json([event.record.offset for event in events]),
        _json([timestamp_of(event.record) for event in events]),
        _json(rare),
    )


def _rare(n: int, ruling: Ruling, rules: int) -> dict[str, object]:
    """What is not plain about a ruling, beside its number."""
    told: dict[str, object] = {"n": n}
    root, facts = ruling.case.root, ruling.facts
    if root.lead_id != ruling.case.event.lead_id:
        told["root"] = root.lead_id
    if root.epoch:
        told["epoch"] = root.epoch
    if ruling.reason is not None:
        told["reason"] = ruling.reason
        told["by"] = ruling.suppressed_by
    if facts.rules != rules:
        told["judged"] = facts.rules
    if not facts.counted:
        told["counted"] = False
    if facts.exceeded:
        told["exceeded"] = {str(revision): burst for revision, burst in facts.exceeded.items()}
    return told


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


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
            key: Facts(
                counted,
                rules,
                {int(revision): burst for revision, burst in (exceeded or {}).items()},
            )
            for key, other, counted, rules, exceeded in known
            if not other
        },
    )
