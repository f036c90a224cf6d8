"""Engagement in Postgres: a batch and how far it brought its partitions are committed together, and what is to be told with them.

So a batch that is delivered again, or by a process that was believed to be dead, finds its records applied.  Every method raises
`Retryable` while Postgres is away, and may be called again with the same arguments.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from processor.failures import Stopped
from processor.io.postgres import QUERIES, Connection, Postgres
from processor.pure.engagement import (
    Change,
    Lead,
    LeadKey,
    Past,
    Ranked,
    Rules,
    Told,
    fold,
    points,
)
from processor.pure.enriched import Foreign, Organic, Relinked
from processor.pure.places import Delivered, due
from processor.pure.score import Score
from processor.pure.sessions import GAP_MS, Session

PUBLISHED_AT_ONCE = 1_000


class Applied(Struct, frozen=True):
    """What became of a batch."""

    places: Mapping[int, int]
    """The next offset of each of its partitions."""
    torn: frozenset[int]
    """Partitions to fetch again from there."""
    taken: int
    """Records that were due, whatever they say."""
    counted: int
    """Events that count from now on."""
    foreign: Sequence[tuple[Delivered, str]]
    """Records that are no enriched events, and why."""
    told: int


class Place(Struct, frozen=True):
    """Where a partition goes on."""

    offset: int
    topic_id: bytes
    """Of the topic that was counted up to there."""


class Store:
    """What is kept of the leads, for readers of one topic."""

    def __init__(self, postgres: Postgres, topic: str, rules: Rules) -> None:
        self._postgres = postgres
        self._topic = topic
        self._rules = rules

    async def places(self) -> Mapping[int, int]:
        """The next offset of every partition that was ever opened."""
        rows = await self._postgres.fetch("places", self._topic)
        return {row["partition"]: row["next_offset"] for row in rows}

    async def opened(self, topic_id: bytes, begins: Mapping[int, int]) -> Mapping[int, Place]:
        """Where partitions go on: at their begins those that were never opened, in the topic of this id."""
        async with self._postgres.transaction() as connection:
            columns = _columns(sorted(begins.items()), 2)
            await connection.execute(QUERIES["open_places"], self._topic, *columns, topic_id)
            rows = await connection.fetch(QUERIES["opened_places"], self._topic, columns[0])
        return {row["partition"]: Place(row["next_offset"], row["topic_id"]) for row in rows}

    async def apply(self, batch: Sequence[Delivered]) -> Applied:
        """Counts what is due of a batch: records of any opened partitions, each partition's in order.  Raises `Stopped` for others."""
        partitions = sorted({one.partition for one in batch})
        async with self._postgres.transaction() as connection:
            rows = await connection.fetch(QUERIES["lock_places"], self._topic, partitions)
            if len(rows) < len(partitions):
                raise Stopped("rows of engagement_places were deleted meanwhile: start again")
            wanted = due(batch, {row["partition"]: row["next_offset"] for row in rows})
            found = [one.found for one in wanted.records]
            change, counted = await self._changed(
                connection,
                [event for event in found if isinstance(event, Organic)],
                [link for link in found if isinstance(link, Relinked)],
            )
            await connection.execute(
                QUERIES["move_places"], self._topic, *_columns(wanted.places.items(), 2)
            )
        foreign = [(r, r.found.reason) for r in wanted.records if isinstance(r.found, Foreign)]
        told = len(change.told) if change else 0
        taken = len(wanted.records)
        return Applied(wanted.places, wanted.torn, taken, counted, foreign, told)

    async def publish(self, send: Callable[[Sequence[Told]], Awaitable[None]]) -> int:
        """Sends what is to be told, in order, and forgets it; how much that was.  A failure in between sends it again."""
        async with self._postgres.transaction() as connection:
            await connection.execute(QUERIES["by_keys"])
            await connection.execute(QUERIES["lock_outbox"])
            rows = await connection.fetch(QUERIES["read_outbox"], PUBLISHED_AT_ONCE)
            if rows:
                await send([Told(row["lead_id"], row["value"].encode()) for row in rows])
                await connection.execute(QUERIES["clear_outbox"], [row["id"] for row in rows])
        return len(rows)

    async def _changed(
        self, connection: Connection, events: Sequence[Organic], links: Sequence[Relinked]
    ) -> tuple[Change | None, int]:
        """What the batch changed, and how many of its events were new."""
        org_units = sorted({e.org_unit for e in events} | {link.org_unit for link in links})
        if not org_units:
            return None, 0
        await connection.execute(QUERIES["by_keys"])
        await connection.execute(QUERIES["open_org_units"], org_units)
        await connection.execute(QUERIES["lock_org_units"], org_units)
        new = await _new(connection, events)
        links = await _whole(connection, links)
        past = await _past(connection, new, links, self._rules)
        change = fold(new, links, past, self._rules)
        await _write(connection, new, change)
        await _rank(connection, change, past)
        return change, len(new)


async def _new(connection: Connection, events: Sequence[Organic]) -> Sequence[Organic]:
    """The first of each id that is not known."""
    firsts: dict[tuple[str, str], Organic] = {}
    for event in events:
        firsts.setdefault((event.org_unit, event.id), event)
    rows = await connection.fetch(QUERIES["known_events"], *_columns(firsts, 2))
    known = {(row["org_unit"], row["id"]) for row in rows}
    return [event for key, event in firsts.items() if key not in known]


async def _whole(connection: Connection, links: Sequence[Relinked]) -> Sequence[Relinked]:
    """Those that tell of a merge or unmerge there was; a producer may name its own events so, and any leads in them.

    With all leads that were parted: an unmerge takes a lead's own edge away, and those of others that the lead was named for.
    """
    if not links:
        return links
    keys = _columns([(link.org_unit, link.id) for link in links], 2)
    parted: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for org_unit, message_id, lead in await connection.fetch(QUERIES["parted_leads"], *keys):
        parted[org_unit, message_id] += [lead] if lead is not None else []
    return [
        structs.replace(link, leads=[*link.leads, *parted[link.org_unit, link.id]])
        for link in links
        if (link.org_unit, link.id) in parted
    ]


async def _past(
    connection: Connection, events: Sequence[Organic], links: Sequence[Relinked], rules: Rules
) -> Past:
    fresh = points(events)
    named = {*fresh, *((link.org_unit, lead) for link in links for lead in link.leads)}
    rows = await connection.fetch(QUERIES["lead_classes"], *_columns(sorted(named), 2))
    keyed = [((row["org"], row["lead"]), row) for row in rows]
    roots = {key: row["root"] for key, row in keyed}
    surging = sorted(
        {
            (event.org_unit, roots[event.org_unit, event.lead_id], event.at)
            for event in events
            if event.event_type in rules.surge.types
        }
    )
    return Past(
        roots=roots,
        leads={key: _lead(row) for key, row in keyed if row["events"] is not None},
        ranked={key: _known(row) for key, row in keyed if row["ranked"] is not None},
        sessions=await _sessions(connection, fresh),
        times=await _times(connection, surging, rules),
        told=await _surges(connection, surging, rules),
    )


def _lead(row: Any) -> Lead:
    score = Score(row["week"], row["total"])
    return Lead(row["events"], row["sessions"], row["first_at"], row["last_at"], score)


def _known(row: Any) -> Ranked:
    return Ranked(row["ranked"], Score(row["ranked_week"], row["ranked_total"]))


async def _sessions(
    connection: Connection, fresh: Mapping[LeadKey, Sequence[Session]]
) -> Mapping[LeadKey, Sequence[Session]]:
    spans = [(*key, one.start, one.end) for key, own in fresh.items() for one in own]
    rows = await connection.fetch(QUERIES["near_sessions"], *_columns(spans, 4), GAP_MS)
    found: dict[LeadKey, list[Session]] = {}
    for org_unit, lead, *session in rows:
        found.setdefault((org_unit, lead), []).append(Session(*session))
    return found


async def _times(
    connection: Connection, surging: Sequence[tuple[str, str, int]], rules: Rules
) -> Mapping[LeadKey, Sequence[int]]:
    if not surging:
        return {}
    rule = rules.surge
    rows = await connection.fetch(
        QUERIES["near_events"],
        *_columns(surging, 3),
        sorted(rule.types),
        rule.window_ms,
        rule.threshold - 1,
    )
    return _by_root((row["org"], row["root"], row["occurred_at"]) for row in rows)


async def _surges(
    connection: Connection, surging: Sequence[tuple[str, str, int]], rules: Rules
) -> Mapping[LeadKey, Sequence[int]]:
    if not surging:
        return {}
    rows = await connection.fetch(
        QUERIES["near_surges"], *_columns(surging, 3), rules.surge.window_ms
    )
    return _by_root((row["org"], row["root"], row["at"]) for row in rows)


def _by_root(times: Iterable[tuple[str, str, int]]) -> Mapping[LeadKey, Sequence[int]]:
    found: dict[LeadKey, list[int]] = {}
    for org_unit, root, at in times:
        found.setdefault((org_unit, root), []).append(at)
    return found


async def _write(connection: Connection, events: Sequence[Organic], change: Change) -> None:
    added = [(e.org_unit, e.id, e.lead_id, e.event_type, e.at) for e in events]
    leads = [
        (*key, lead.events, lead.sessions, lead.first, lead.last, lead.score.week, lead.score.total)
        for key, lead in change.leads.items()
    ]
    ended = [(*key, start) for key, start in change.ended]
    sessions = [(*key, one.start, one.end, one.events) for key, one in change.sessions]
    surges = [(*key, at) for key, at in change.surges]
    for name, rows, width in (
        ("add_events", added, 5),
        ("put_leads", leads, 8),
        ("end_sessions", ended, 3),
        ("add_sessions", sessions, 5),
        ("add_surges", surges, 3),
    ):
        if rows:
            await connection.execute(QUERIES[name], *_columns(rows, width))


async def _rank(connection: Connection, change: Change, past: Past) -> None:
    together = await _together(connection, change.ranked)
    rows = [(*key, *_row(now, together.get(key))) for key, now in change.ranked.items()]
    more: Counter[str] = Counter()
    for key, now in change.ranked.items():
        known = past.ranked.get(key)
        more[key[0]] += bool(now.events) - bool(known and known.events)
    if rows:
        await connection.execute(QUERIES["rank_leads"], *_columns(rows, 9))
        await connection.execute(QUERIES["count_ranked"], *_columns(more.items(), 2))
    if change.told:
        told = [(one.lead_id, one.value.decode()) for one in change.told]
        await connection.execute(QUERIES["add_to_outbox"], *_columns(told, 2))


def _row(now: Ranked, together: int | None) -> Sequence[Any]:
    score = now.score
    sessions = together if now.sessions is None else now.sessions
    return now.events, score.week, score.total, score.rank, now.first, now.last, sessions


async def _together(
    connection: Connection, ranked: Mapping[LeadKey, Ranked]
) -> Mapping[LeadKey, int]:
    """The sessions of roots that are the sum of several leads, as they are stored by now."""
    parts = [
        (*key, part) for key, now in ranked.items() if len(now.parts) > 1 for part in now.parts
    ]
    if not parts:
        return {}
    rows = await connection.fetch(QUERIES["sessions_together"], *_columns(parts, 3))
    return {(row["org"], row["root"]): row["sessions"] for row in rows}


def _columns(rows: Iterable[Sequence[Any]], width: int) -> Sequence[list[Any]]:
    """Rows by column; as many empty columns where there are none."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
