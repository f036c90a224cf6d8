"""Events in Postgres: one call stores the rulings on a batch, and the first committed row of an id is its verdict for ever."""

import secrets
from collections.abc import Sequence

import orjson

from processor.io.postgres import Conflict, Postgres
from processor.ports import Answer, KnownIds, Recorded, StaleRoots, StaleRules, Stored
from processor.pure.origin import timestamp_of
from processor.pure.types import Case, Facts, Root, Ruling

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
    texts = (
        [event.org_unit for event in events],
        [event.id for event in events],
        [event.lead_id for event in events],
        [event.event_type for event in events],
    )
    return (
        *_joined(texts),
        b"\n".join([event.metadata_json for event in events]).decode(),
        _numbers([event.occurred_at for event in events]),
        _numbers([event.record.offset for event in events]),
        _numbers([timestamp_of(event.record) for event in events]),
        _json([_merged(n, case) for n, case in enumerate(cases, 1) if _is_merged(case)]),
        _json([_rare(n, one, rules) for n, one in enumerate(rulings, 1) if _is_rare(one, rules)]),
    )


def _joined(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A separator that no value holds, and the columns joined by it."""
    joined = [_SEPARATOR.join(column) for column in columns]
    if all(text.count(_SEPARATOR) == len(columns[0]) - 1 for text in joined):
        return _SEPARATOR, *joined
    separator = secrets.token_hex(16)
    return separator, *(separator.join(column) for column in columns)


def _numbers(column: Sequence[int | None]) -> str:
    """As Postgres writes an array."""
    return "{" + _json(column)[1:-1] + "}"


def _is_merged(case: Case) -> bool:
    return case.root.epoch != 0 or case.root.lead_id != case.event.lead_id


def _merged(n: int, case: Case) -> dict[str, object]:
    """Of an event whose lead is not its own root in epoch 0."""
    return {"n": n, "root": case.root.lead_id, "epoch": case.root.epoch}


def _is_rare(ruling: Ruling, rules: int) -> bool:
    facts = ruling.facts
    plain = ruling.reason is None and facts.counted and not facts.exceeded
    return not plain or facts.rules != rules


def _rare(n: int, ruling: Ruling, rules: int) -> dict[str, object]:
    """What is not plain about a ruling, beside its number."""
    told: dict[str, object] = {"n": n}
    facts = ruling.facts
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
