"""An independent recount: every verdict in the database worked out again from nothing but what is stored.

For leads never merged a verdict must agree exactly, with its provenance; for merged ones, whose order around the merge is not
defined, the lead, the original and what the provenance claims must be possible.  A row judged by older rules than today's
is a member of its windows but its verdict is not checked.  It may import nothing of the program it checks.

Filters must not change and merges must have settled while it reads.  Times are milliseconds since 1970 (UTC).
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import orjson

from processor.demo.recount_check import Attribute, Checker, Merges, OrgFilters, Report
from processor.demo.recount_conditions import compiled
from processor.demo.recount_fold import Stored, Velocity

# Grouped by window, in processing order: a lead that was never merged has all its messages on one partition.
ROWS = """
    SELECT org_unit, id, lead_id, original_lead_id, event_type, metadata::text AS metadata, suppression_reason,
           suppressed_by::text AS suppressed_by, (extract(epoch FROM occurred_at) * 1000)::bigint AS at,
           source_topic || '/' || source_partition AS source, rules, counted, deleted_at IS NOT NULL AS deleted
      FROM events
     ORDER BY org_unit, lead_id, event_type, batch, source_offset
"""
FILTERS = """
    SELECT org_unit, id, kind, name, event_type, threshold, window_ms, keep_first, conditions::text AS conditions,
           version, revision, enabled AND NOT deleted AS in_force
      FROM filters
"""
REDIRECTS = "SELECT org_unit, from_lead, to_lead FROM lead_redirects"
TOUCHED = "SELECT org_unit, lead_id FROM lead_epochs"
EDGES = """
    SELECT org_unit, source_lead, target_lead, removed_by IS NOT NULL AS removed FROM merge_edges
"""


class Connection(Protocol):
    """The part of an asyncpg connection that is used."""

    def transaction(self, *, isolation: str, readonly: bool) -> Any: ...
    async def fetch(self, query: str) -> Sequence[Mapping[str, Any]]: ...
    def cursor(self, query: str, *, prefetch: int) -> AsyncIterable[Mapping[str, Any]]: ...


async def recount(connection: Connection, order: str = "velocity,metadata") -> Report:
    """Check every row; ``order`` is the worker's FILTER_ORDER."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        filters = read_filters(await connection.fetch(FILTERS))
        moved = {(o, f): t for o, f, t in map(_values, await connection.fetch(REDIRECTS))}
        touched = {(o, lead) for o, lead in map(_values, await connection.fetch(TOUCHED))}
        parted = once_united(map(_values, await connection.fetch(EDGES)))
        checker = Checker(filters, Merges(moved, touched, parted), order)
        async for window in _windows(connection):
            checker.check(window)
    return checker.report


def once_united(edges: Iterable[tuple[str, str, str, bool]]) -> set[tuple[str, str]]:
    """All leads that were ever one with a lead that is not theirs any more: of (org unit, lead, lead, whether taken back)."""
    near: dict[tuple[str, str], set[tuple[str, str]]] = {}
    found: list[tuple[str, str]] = []
    for org_unit, source, target, removed in edges:
        ends = (org_unit, source), (org_unit, target)
        for end, other in (ends, ends[::-1]):
            near.setdefault(end, set()).add(other)
        found += ends if removed else ()
    reached: set[tuple[str, str]] = set()
    while found:
        lead = found.pop()
        if lead not in reached:
            reached.add(lead)
            found += near[lead]
    return reached


def _values(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.values())


async def _windows(connection: Connection) -> AsyncIterator[list[Stored]]:
    """The rows of one lead and type at a time."""
    window: list[Stored] = []
    async for record in connection.cursor(ROWS, prefetch=5_000):
        row = Stored(*record.values())
        if window and _window_of(row) != _window_of(window[0]):
            yield window
            window = []
        window.append(row)
    if window:
        yield window


def _window_of(row: Stored) -> tuple[str, str, str]:
    return row.org_unit, row.lead_id, row.event_type


def recounted(checker: Checker, rows: Iterable[Stored]) -> Report:
    """The report on rows in hand, sorted as ``ROWS`` sorts them."""
    for _, window in groupby(rows, _window_of):
        checker.check(list(window))
    return checker.report


def read_filters(records: Iterable[Mapping[str, Any]]) -> dict[str, OrgFilters]:
    """The filters in force by org unit, smallest id (by bytes) first."""
    found: dict[str, OrgFilters] = {}
    for r in sorted(records, key=lambda r: r["id"].encode()):
        org = found.setdefault(r["org_unit"], OrgFilters())
        org.since = max(org.since, r["revision"])
        common = r["id"], r["name"], r["version"]
        if not r["in_force"]:
            continue
        if r["kind"] == "velocity":
            velocity = Velocity(*common, r["threshold"], r["window_ms"], r["keep_first"])
            org.velocity.setdefault(r["event_type"], []).append(velocity)
        else:
            test = compiled(orjson.loads(r["conditions"]))
            org.attributes.append(Attribute(*common, r["event_type"], test))
    return found
