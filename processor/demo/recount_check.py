"""One window of stored rows checked: the verdicts folded again in processing order, or only what must hold after a merge.

A window is the rows of one lead and event type.  It may import nothing of the program it checks.  Times are milliseconds.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from processor.demo.recount_conditions import Test
from processor.demo.recount_fold import Fold, Said, Stored, Velocity

MERGE_EVENTS = frozenset({"Lead Merged", "Lead Unmerged"})
_NOBODY_KNOWS = 2**63
"""More events than there can be."""


class Attribute(NamedTuple):
    """An enabled metadata filter; an empty type is every type."""

    id: str
    name: str
    version: int
    event_type: str
    holds: Test


@dataclass
class OrgFilters:
    """The filters in force in an org unit, by id; ``since`` is the rule revision of the last change."""

    velocity: dict[str, list[Velocity]] = field(default_factory=dict)
    attributes: list[Attribute] = field(default_factory=list)
    since: int = 0


class Merges(NamedTuple):
    """What merges made of leads; each is org unit and lead."""

    moved: Mapping[tuple[str, str], str]
    """The redirects."""
    touched: Set[tuple[str, str]]
    """Leads of any merge or unmerge."""
    parted: Set[tuple[str, str]] = frozenset()
    """Leads whose verdicts may rest on events that an unmerge gave back to another lead."""


class Mismatch(NamedTuple):
    """A row that says something else than the recount."""

    org_unit: str
    id: str
    problem: str


@dataclass
class Report:
    """``exact`` and ``plausible`` count rows by how they were checked, ``older`` rows judged by rules that no longer hold."""

    exact: int = 0
    plausible: int = 0
    older: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)

    @property
    def checked(self) -> int:
        """Rows whose verdict was checked."""
        return self.exact + self.plausible

    @property
    def agrees(self) -> bool:
        """No row says anything else."""
        return not self.mismatches


class Checker:
    """Windows in, a report out."""

    def __init__(self, filters: Mapping[str, OrgFilters], merges: Merges, order: str) -> None:
        self.report = Report()
        self._filters, self._merges, self._order = filters, merges, order
        moved = merges.moved
        self._touched = {*merges.touched, *moved, *((org, to) for (org, _), to in moved.items())}

    def check(self, window: Sequence[Stored]) -> None:
        """Check the rows of one lead and event type, given in processing order."""
        org_unit, lead = window[0].org_unit, window[0].lead_id
        filters = self._filters.get(org_unit, OrgFilters())
        merged = (org_unit, lead) in self._touched or any(r.original_lead_id for r in window)
        spread = len({r.source for r in window}) > 1
        judged = self._possible if merged or spread else self._exact
        for row, problems in judged(window, filters):
            if row.rules < filters.since:
                self.report.older += 1
                continue
            self.report.exact += not (merged or spread)
            self.report.plausible += merged or spread
            found = [*problems, *self._lead_problems(row)]
            self.report.mismatches += [Mismatch(row.org_unit, row.id, text) for text in found]

    def _lead_problems(self, row: Stored) -> Iterator[str]:
        raw = row.lead_id if row.original_lead_id is None else row.original_lead_id
        root = self._merges.moved.get((row.org_unit, raw), raw)
        if root != row.lead_id:
            yield f"lead is {row.lead_id!r}, should be {root!r}"
        if row.original_lead_id == row.lead_id:
            yield "the original lead is the lead"

    def _exact(
        self, window: Sequence[Stored], filters: OrgFilters
    ) -> Iterator[tuple[Stored, list[str]]]:
        fold = Fold(filters.velocity.get(window[0].event_type, []))
        for row in window:
            matched = _matched(row, filters)
            counted = self._order == "velocity,metadata" or matched is None
            if row.deleted or row.rules < filters.since:
                counted = row.counted  # its metadata is gone, or other filters matched it
            said = fold.add(row) if counted else []
            problems = [] if counted == row.counted else [f"counted is {row.counted}"]
            yield row, [*problems, *_verdict_problems(row, said, matched)]

    def _possible(
        self, window: Sequence[Stored], filters: OrgFilters
    ) -> Iterator[tuple[Stored, list[str]]]:
        times = sorted(r.at for r in window if r.counted)
        ids = {r.id for r in window}
        watching = filters.velocity.get(window[0].event_type, [])
        parted = (window[0].org_unit, window[0].lead_id) in self._merges.parted
        for row in window:
            if row.event_type in MERGE_EVENTS and not row.counted:
                yield row, ["a merge event is suppressed"] if row.suppression_reason else []
                continue
            yield row, [*_impossible(row, Around(times, ids, watching, parted), filters)]


class Around(NamedTuple):
    """The whole window of a merged lead, whenever its rows came."""

    times: Sequence[int]
    ids: Set[str]
    watching: Sequence[Velocity]
    parted: bool
    """It had other events, which are elsewhere now: how many nobody knows."""


def _matched(row: Stored, filters: OrgFilters) -> Attribute | None:
    watching = [f for f in filters.attributes if f.event_type in ("", row.event_type)]
    if not watching or row.deleted:
        return None
    metadata = orjson.loads(row.metadata)
    return next((f for f in watching if f.holds(metadata)), None)


def _verdict_problems(
    row: Stored, said: Sequence[Said], matched: Attribute | None
) -> Iterator[str]:
    for reason in ("inorganic", "inorganic_grouped"):
        for one in said:
            if one.reason == reason:
                yield from _by_velocity(row, one)
                return
    if row.deleted and row.suppression_reason in (None, "metadata_filter"):
        return
    yield from _by_attribute(row, matched)


def _by_velocity(row: Stored, said: Said) -> Iterator[str]:
    if row.suppression_reason != said.reason:
        yield f"reason is {row.suppression_reason}, should be {said.reason} by {said.filter.id}"
        return
    by = dict(orjson.loads(row.suppressed_by or "{}"))
    count = by.pop("count", None)
    if type(count) is not int or not said.filter.threshold < count <= said.events:
        yield f"count is {count}, should be {said.filter.threshold + 1} to {said.events}"
    if said.filter.keep_first and by.pop("burst_id", None) not in said.bursts:
        yield f"burst is none of {sorted(said.bursts)}"
    f = said.filter
    limits = {"threshold": f.threshold, "window_ms": f.window_ms}
    if by != _named(f) | limits:
        yield f"suppressed_by is {row.suppressed_by}, should be of {f.id}"


def _by_attribute(row: Stored, matched: Attribute | None) -> Iterator[str]:
    reason = "metadata_filter" if matched else None
    if row.suppression_reason != reason:
        yield f"reason is {row.suppression_reason}, should be {reason} {matched and matched.id}"
        return
    by = orjson.loads(row.suppressed_by) if row.suppressed_by else None
    if by != (_named(matched) if matched else None):
        yield f"suppressed_by is {row.suppressed_by}, should be of {matched and matched.id}"


def _named(f: Velocity | Attribute) -> dict[str, Any]:
    return {"filter_id": f.id, "filter_version": f.version, "filter_name": f.name}


def _impossible(row: Stored, around: Around, filters: OrgFilters) -> Iterator[str]:
    """What the row claims that no order of its window's events allows."""
    matched = _matched(row, filters)
    if row.suppression_reason in (None, "metadata_filter"):
        yield from () if row.deleted else _by_attribute(row, matched)
        return
    by = orjson.loads(row.suppressed_by or "{}")
    f = next((f for f in around.watching if f.id == by.get("filter_id")), None)
    if f is None:
        yield f"no such filter watches {row.event_type}: {row.suppressed_by}"
        return
    most = bisect_right(around.times, row.at) - bisect_right(around.times, row.at - f.window_ms)
    burst = by.get("burst_id")
    known = burst in around.ids or (around.parted and burst is not None)
    bursts = frozenset({burst}) if known and burst != row.id else frozenset()
    yield from _by_velocity(row, Said(f, _NOBODY_KNOWS if around.parted else most, bursts))
