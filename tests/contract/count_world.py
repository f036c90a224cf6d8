"""Events stored through the worker's own SQL at random, and what a plain look at all rows says of them."""

import random
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import asyncpg
from msgspec import Struct

from processor.io import listing
from processor.io.listing import Chosen
from processor.io.postgres import API_ROLE, Postgres
from processor.pure.types import Case, Event, Facts, Root, Ruling
from tests.contract.merge_world import ORG, People
from tests.unit.merge_records import NoRecord

START = 1_700_000_000_000
DAY = 86_400_000
LEADS = [f"L{n}" for n in range(8)]
TYPES = ("Page View", "Email Open", "Rare")
REASONS: tuple[Any, ...] = (None, "inorganic", "inorganic_grouped", "metadata_filter")
YEAR_1, YEAR_9999 = -62_135_596_800_000, 253_402_300_799_999


class Row(Struct, frozen=True):
    """A row that is not deleted, as everybody sees it."""

    at: int
    id: str
    lead_id: str
    event_type: str
    reason: str | None

    def is_chosen(self, chosen: Chosen) -> bool:
        """Whether a listing has it."""
        late_enough = chosen.since is None or self.at >= chosen.since
        early_enough = chosen.until is None or self.at < chosen.until
        typed = chosen.event_type in ("", self.event_type)
        reasoned = chosen.reasons >> REASONS.index(self.reason) & 1
        return bool(late_enough and early_enough and typed and reasoned)


def some_time(chance: random.Random) -> int:
    """Mostly the same few seconds, where the trie goes deep; the rest anywhere."""
    match chance.randrange(20):
        case 0:
            return chance.randint(YEAR_1, YEAR_9999)
        case 1 | 2 | 3:
            return START + chance.randrange(90 * DAY)
        case 4 | 5:
            return START
        case _:
            return START + chance.randrange(20_000)


def some_choice(chance: random.Random) -> Chosen:
    """Any type, reasons and bounds."""
    times = sorted(some_time(chance) for _ in range(2))
    return Chosen(
        ORG,
        chance.choice(("", "", *TYPES)),
        chance.choice((15, 15, 14, 1, 2, 4, 8)),
        chance.choice((None, times[0])),
        chance.choice((None, times[1])),
    )


def some_events(people: People, chance: random.Random, ids: Sequence[str]) -> list[Event]:
    """Events of one message each."""
    return [_event(people, chance, event_id) for event_id in ids]


async def ingest(people: People, events: Sequence[Event]) -> None:
    """One batch: `record_rulings` as a worker calls it, decided again where leads were merged meanwhile."""
    stored = False
    while not stored:
        roots = await people.roots([event.lead_id for event in events])
        rulings = [ruling(event, Root(*root)) for event, root in zip(events, roots, strict=True)]
        stored = await people.recorded(rulings)


def _event(people: People, chance: random.Random, event_id: str) -> Event:
    event_type = chance.choices(TYPES, (100, 20, 0.5))[0]
    record = NoRecord("raw", offset=next(people._offsets))
    lead, at = chance.choice(LEADS), some_time(chance)
    return Event(record, ORG, event_id, lead, event_type, {}, b"{}", at)


def ruling(event: Event, root: Root) -> Ruling:
    """A verdict that the id alone decides."""
    luck = crc32(event.id.encode()) % 7
    reason = REASONS[luck] if luck < len(REASONS) else None
    by = {"filter_id": f"f{luck}"} if reason else None
    return Ruling(Case(event, root, None, True, ()), reason, by, Facts(True, 1, {}))


async def every_row(database: asyncpg.Pool) -> list[Row]:
    """All rows that are not deleted, newest first, each under the root of the lead it named."""
    rows = await database.fetch(
        """SELECT (extract(epoch FROM e.occurred_at) * 1000)::bigint, e.id, coalesce(r.to_lead, raw.lead), e.event_type,
            e.suppression_reason
        FROM events e CROSS JOIN LATERAL (SELECT coalesce(e.original_lead_id, e.lead_id) AS lead) raw
        LEFT JOIN lead_redirects r ON r.org_unit = e.org_unit AND r.from_lead = raw.lead
        WHERE e.deleted_at IS NULL"""
    )
    found = [Row(*row) for row in rows]
    return sorted(found, key=lambda row: (row.at, row.id.encode()), reverse=True)


async def reader(url: str) -> Postgres:
    """The API's own sessions."""
    return await Postgres.connect(url, 1, {"role": API_ROLE})


async def check(postgres: Postgres, rows: Sequence[Row], chance: random.Random) -> None:
    """Listings of the org unit and of a lead, anywhere in them, are what the rows say."""
    chosen = some_choice(chance)
    limit = chance.choice((1, 25, 100))
    wanted = [row for row in rows if row.is_chosen(chosen)]
    page = chance.randrange(len(wanted) // limit + 2) + 1
    found = await listing.events(postgres, chosen, page, limit)
    assert (found.total, _ids(found)) == (len(wanted), _page(wanted, page, limit)), (chosen, page)

    lead = chance.choice(LEADS)
    theirs = [row for row in wanted if row.lead_id == lead]
    page = chance.randrange(len(theirs) // limit + 2) + 1
    of_lead = await listing.of_lead(postgres, chosen, lead, page, limit)
    if of_lead is None:
        assert all(row.lead_id != lead for row in rows)
    elif any(row.lead_id == lead for row in rows):  # one that is merged away means its survivor
        assert (of_lead.total, _ids(of_lead)) == (len(theirs), _page(theirs, page, limit))


def _ids(page: listing.Page) -> list[str]:
    return [row["id"] for row in page.rows]


def _page(rows: Sequence[Row], page: int, limit: int) -> list[str]:
    return [row.id for row in rows[(page - 1) * limit : page * limit]]
