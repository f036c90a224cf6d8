"""I6, and I9 of windows: what Redis holds complete counts what Postgres counts, and is no more than the facts that decide."""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tests.faults.checker_leads import Leads
from tests.faults.evidence import Evidence, Filter, Held, Row
from tests.faults.promise import Promise


def miscounted(leads: Leads, evidence: Evidence) -> Iterator[str]:
    """Windows whose counts or bursts are not those of the rows; and too few that can be compared at all."""
    known = _known(leads, evidence)
    stored = _stored(known)
    compared = [
        (held, velocity, stored.get((held.org_unit, held.lead_id, velocity.event_type), ()))
        for held, velocity in _read(leads, known)
    ]
    for held, velocity, rows in compared:
        yield from _window(held, velocity, rows)
    reached = [_reached(*one) for one in compared]
    watched = {(f.org_unit, f.event_type) for f in evidence.filters}
    if not any(reached) and any((org, kind) in watched for org, _, kind in stored):
        yield f"nothing of {len(evidence.windows)} windows could be compared with rows that filters watch"
    blind = sum(
        not times for times, (held, *_) in zip(reached, compared, strict=True) if held.times
    )
    if 2 * blind > len(compared):
        yield f"the floors of {blind} of {len(compared)} windows are above all that they hold"


def _known(leads: Leads, evidence: Evidence) -> Evidence:
    """Of leads that have no rows from before: of all others not all rows are known."""
    full = {(org_unit, leads.root(org_unit, lead)) for org_unit, lead in evidence.filled}
    return replace(
        evidence,
        rows=[row for row in evidence.rows if (row.org_unit, row.lead_id) not in full],
        windows=[held for held in evidence.windows if (held.org_unit, held.lead_id) not in full],
    )


def _stored(evidence: Evidence) -> Mapping[tuple[str, str, str], Sequence[Row]]:
    """The rows that count, by org unit, lead and type."""
    rows: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in evidence.rows:
        if row.counted:
            rows[row.org_unit, row.lead_id, row.event_type].append(row)
    return rows


def _read(leads: Leads, evidence: Evidence) -> Iterator[tuple[Held, Filter]]:
    """Windows that somebody would still ask."""
    filters = {(f.org_unit, f.revision): f for f in evidence.filters}
    for held in evidence.windows:
        velocity = filters.get((held.org_unit, held.revision))
        lead = held.org_unit, held.lead_id
        # Nobody asks for the windows of a lead that was merged away.
        read = held.epoch == evidence.epochs.get(lead, 0) and leads.root(*lead) == held.lead_id
        if velocity is not None and read:
            yield held, velocity


def _reached(held: Held, velocity: Filter, rows: Sequence[Row]) -> Sequence[int]:
    """The times whose windows do not reach below the floor."""
    times = {*(row.at for row in rows), *held.times}
    return sorted(at for at in times if at - velocity.window_ms >= held.floor)


def _window(held: Held, velocity: Filter, rows: Sequence[Row]) -> Iterator[str]:
    width, most = velocity.window_ms, velocity.threshold + 1
    times, members = sorted(row.at for row in rows), sorted(held.times)
    name = held.org_unit, held.lead_id, velocity.id
    for at in _reached(held, velocity, rows):
        stored = min(most, bisect_right(times, at) - bisect_right(times, at - width))
        cached = min(most, bisect_right(members, at) - bisect_right(members, at - width))
        if stored != cached:
            yield f"window {name} counts {cached} at {at}, Postgres {stored}"
    facts_known = all(row.rules >= velocity.revision for row in rows)
    if velocity.keep_first and facts_known:
        yield from _exceeding(held, velocity, rows)


def _exceeding(held: Held, velocity: Filter, rows: Sequence[Row]) -> Iterator[str]:
    width, revision = velocity.window_ms, str(velocity.revision)
    stored = sorted(r.at for r in rows if revision in json.loads(r.exceeded or "{}"))
    cached = sorted(held.exceeding)
    for at in stored:
        if at - width >= held.floor and not _near(cached, at, width):
            yield f"burst at {at} of {held.org_unit, held.lead_id, velocity.id} is not in Redis"
    for at in cached:
        if not _near(stored, at, width):
            yield f"burst at {at} of {held.org_unit, held.lead_id, velocity.id} is in no row"


def _near(times: Sequence[int], at: int, width: int) -> bool:
    return bisect_left(times, at + width) > bisect_right(times, at - width)


def too_large(evidence: Evidence, promise: Promise) -> Iterator[str]:
    """Windows with more than the first and last N + 1 of each slice, or more slices than lateness leaves."""
    filters = {(f.org_unit, f.revision): f for f in evidence.filters}
    for held in evidence.windows:
        velocity = filters.get((held.org_unit, held.revision))
        if velocity is None:
            continue
        name = f"{velocity.id} of {held.org_unit, held.lead_id}"
        width, left = velocity.window_ms, -(-promise.lateness_ms // velocity.window_ms) + 3
        slices = min(left, len({at // width for at in held.times}))
        if len(held.times) > 2 * (velocity.threshold + 1) * slices:
            yield f"{name} holds {len(held.times)} members in {slices} slices"
        # The first and last of what was stored, and of what came in while the window was built.
        bursts = len({at // width for at in held.exceeding})
        if len(held.exceeding) > 4 * bursts:
            yield f"{name} holds {len(held.exceeding)} exceeding events in {bursts} slices"
