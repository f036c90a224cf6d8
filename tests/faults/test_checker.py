"""The checker finds nothing in a history that is as it must be, and names the invariant of each thing that is not."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from processor.io.windows_generations import LAYOUT
from processor.io.windows_touched import EXCEEDING, Kind, Touched
from processor.pure.types import VelocityFilter
from tests.faults.checked import (
    ASKED,
    AT,
    MERGED,
    MERGES,
    RAW,
    RECEIVED,
    TOLD,
    WATCH,
    good,
    message,
    row,
)
from tests.faults.checker import check
from tests.faults.evidence import Evidence, Row, window_named
from tests.faults.history import Asked, Merge, Sent, asked
from tests.faults.promise import Promise
from tests.oracle_compare import rfc3339
from tests.traffic import Record


def test_nothing_is_wrong_with_what_is_as_it_must_be() -> None:
    """A duplicate has its original's row, a deleted event a tombstone, a merged one its original lead."""
    assert check(*good(), Promise()) == []


def _rows(change: Callable[[list[Row]], list[Row]]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, rows=change(evidence.rows))


def _row(n: int, **change: object) -> Callable[[Evidence], Evidence]:
    """The row is another one, and the rest is as if it had always been so."""

    def changed(evidence: Evidence) -> Evidence:
        rows = [*evidence.rows]
        rows[n] = rows[n]._replace(**change)  # type: ignore[arg-type]
        said = [*evidence.published]
        said[n] = message(rows[n])
        return replace(evidence, rows=rows, published=said)

    return changed


def _told(**change: object) -> Callable[[Evidence], Evidence]:
    """The event of the merge says so, stored and published."""
    return _row(3, metadata=json.dumps(TOLD | change))


def _said(n: int, **change: object) -> Callable[[Evidence], Evidence]:
    """A message says something else than its row."""

    def changed(evidence: Evidence) -> Evidence:
        said = [*evidence.published]
        said[n] = said[n]._replace(**change)  # type: ignore[arg-type]
        return replace(evidence, published=said)

    return changed


def _held(**change: object) -> Callable[[Evidence], Evidence]:
    return lambda e: replace(e, windows=[e.windows[0]._replace(**change)])  # type: ignore[arg-type]


def _without(place: int) -> Callable[[Evidence], Evidence]:
    """Neither the row nor its message is there."""
    return lambda e: replace(
        e,
        rows=[*e.rows[:place], *e.rows[place + 1 :]],
        published=[*e.published[:place], *e.published[place + 1 :]],
    )


LOST: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "an event below the commit has no row": ("I1", _without(2)),
    "a bad message has no letter": ("I1", lambda e: replace(e, letters=[])),
    "a row has another type than was sent": ("I1", _row(0, event_type="Email Open")),
    "a row has another time than was sent": ("I1", _row(0, at=AT + 1)),
    "a row has other metadata than was sent": ("I1", _row(0, metadata='{"n": true}')),
    "a row has another org unit than was sent": ("I1", _row(0, org_unit="globex")),
    "an id has two rows": ("I2", _rows(lambda rows: [*rows, rows[0]])),
    "a row was never sent": (
        "I2",
        _rows(lambda rows: [*rows, rows[0]._replace(id="x", source_offset=99)]),
    ),
    "a row is that of its duplicate": ("I2", _row(0, source_offset=4)),
    "a merge that did nothing is told of": (
        "I2",
        _rows(lambda rows: [*rows, rows[3]._replace(id="n", source_offset=1)]),
    ),
    "something is not committed": (
        "I7",
        lambda e: replace(e, committed={**e.committed, (RAW, 0): 4}),
    ),
    "progress took too long": ("I7", lambda e: replace(e, recovery_s=61.0)),
    "a deleted event is back": ("I8", _row(1, deleted=False)),
    "a worker is too large": ("I9", lambda e: replace(e, most_rss_mb=301.0)),
}
PUBLISHED: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "a verdict is published that is not stored": ("I3", _said(0, suppression_reason="inorganic")),
    "a verdict is published with other provenance": ("I3", _said(2, suppressed_by={})),
    "another type is published": ("I3", _said(0, event_type="Email Open")),
    "other metadata is published": ("I3", _said(0, metadata={"n": 1})),
    "a deleted event was published without its metadata": ("I3", _said(1, metadata={})),
    "another time is published": ("I3", _said(0, created_at=rfc3339(AT + 1))),
    "another commit is published": ("I3", _said(0, received_at=rfc3339(RECEIVED + 1))),
    "a message has the key of another lead": ("I3", _said(2, record_key=b"A")),
    "a message has a header less": ("I3", _said(0, headers=(("event-id", b"e0"),))),
    "a message has a header twice": (
        "I3",
        lambda e: _said(0, headers=(*e.published[0].headers, ("event-id", b"e0")))(e),
    ),
    "an organic message has a reason in its headers": (
        "I3",
        lambda e: _said(0, headers=e.published[1].headers)(e),
    ),
    "the recount disagrees": ("I3", lambda e: replace(e, recount=["e0 should be inorganic"])),
    "an event is not published": ("I4", lambda e: replace(e, published=e.published[1:])),
    "an event is published twice": (
        "I4",
        lambda e: replace(e, published=[*e.published, e.published[0]]),
    ),
    "a bad message has two letters": ("I4", lambda e: replace(e, letters=e.letters * 2)),
    "a good message has a letter": ("I4", lambda e: replace(e, letters=[*e.letters, (RAW, 0, 0)])),
}
MERGING: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "an event stays with a merged lead": ("I5", _row(2, lead_id="B", original_lead_id=None)),
    "a moved event forgets its original": ("I5", _row(2, original_lead_id=None)),
    "a message is of a lead that hers never was": (
        "I5",
        _said(0, lead_id="B", original_lead_id="A"),
    ),
    "a message of the survivor forgets who was named": ("I5", _said(2, lead_id="A")),
    "a message of who was named has an original": ("I5", _said(0, original_lead_id="B")),
    "a merge is not told of": ("I5", _without(3)),
    "a merge is told of twice": (
        "I5",
        _rows(lambda rows: [*rows, rows[3]._replace(id="n")]),
    ),
    "a merge is told of on another timeline": ("I5", _row(3, original_lead_id="B")),
    "a merge is told of as an unmerge": ("I5", _row(3, event_type="Lead Unmerged")),
    "a merge has another time than its message": ("I5", _row(3, at=ASKED + 1)),
    "a merge names other sources": ("I5", _told(source_lead_ids=["B", "C"])),
    "a merge names who asked for it, though nobody did": ("I5", _told(requested_by="us")),
    "a merge counts fewer events than were there": ("I5", _told(events_moved=0)),
    "a merge counts more events than there ever were": ("I5", _told(events_moved=2)),
    "a merge counts an event that came after it": (
        "I5",
        _row(2, batch=25, received_at=ASKED + 1),
    ),
    "a merge took effect after it was told of": (
        "I5",
        lambda e: replace(_row(2, batch=25, received_at=ASKED + 1)(e), turns={("acme", "m"): 30}),
    ),
    "a merge passes over what was there": (
        "I5",
        lambda e: replace(_told(events_moved=0)(e), turns={("acme", "m"): 12}),
    ),
    "nobody knows when a merge took effect": ("I5", lambda e: replace(e, turns={})),
}
WINDOWS: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "a window lacks a member": ("I6", _held(times=(AT, AT + 200))),
    "a window has one too many": ("I6", _held(times=(AT - 50, AT, AT + 100, AT + 200))),
    "a window lacks its burst": ("I6", _held(exceeding=())),
    "a window has a burst of no row": ("I6", _held(exceeding=(AT + 100, AT + 200, AT + 5_000))),
    "a window counts what nobody stored": ("I6", _held(times=(AT, AT + 100, AT + 200, AT + 9_000))),
    "there is no window": ("I6", lambda e: replace(e, windows=[])),
    "the floor of every window is above all members": ("I6", _held(floor=AT + 10_000)),
    "the floors of most windows are above all members": (
        "I6",
        lambda e: replace(e, windows=[*e.windows, *[e.windows[0]._replace(floor=AT + 10_000)] * 2]),
    ),
    "all windows are of other filters": ("I6", _held(revision=1)),
    "all windows are of another epoch": ("I6", _held(epoch=6)),
    "a window grows without bound": (
        "I9",
        _held(times=(*[AT] * 20_000, AT + 100, AT + 200)),
    ),
    "a window keeps more of a slice than its ends": ("I9", _held(times=range(AT, AT + 5))),
    "a window keeps more exceeding events than its ends": (
        "I9",
        _held(exceeding=range(AT, AT + 5)),
    ),
}
BROKEN = LOST | PUBLISHED | MERGING | WINDOWS


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_as_it_must_be_is_named_by_its_invariant(case: str) -> None:
    """By that one; another may see it too."""
    invariant, change = BROKEN[case]
    history, evidence = good()
    found = check(history, change(evidence), Promise())
    assert invariant in {violation.invariant for violation in found}, found


def test_at_least_once_may_publish_twice() -> None:
    """But not less than once, and never another verdict."""
    history, evidence = good()
    promise = Promise(exactly_once=False)
    twice = replace(evidence, published=evidence.published * 2, letters=evidence.letters * 2)
    assert check(history, twice, promise) == []
    missing = replace(evidence, published=evidence.published[1:])
    assert {v.invariant for v in check(history, missing, promise)} == {"I4"}


def test_a_merge_counts_the_rows_that_were_there_before_all_else() -> None:
    """They are not among the rows that the checker knows one by one."""
    history, evidence = good()
    full = replace(evidence, filled={("acme", "B"): 5})
    assert {v.invariant for v in check(history, full, Promise())} == {"I5"}
    assert check(history, _told(events_moved=6)(full), Promise()) == []


def test_a_parted_lead_is_told_of_with_what_left_with_it() -> None:
    """Its row may have been published for the survivor, which it had in between."""
    history, evidence = good()
    history.sent.append(Sent(MERGES, 0, 2, Merge("acme", "A", ("B",), "unmerge"), ASKED + 5))
    unmerged = {"id": "u", "event_type": "Lead Unmerged", "at": ASKED + 5, "source_offset": 2}
    told = row(3)._replace(**MERGED | unmerged | {"batch": 30})
    rows = [*evidence.rows[:2], row(2, "B"), evidence.rows[3], told]
    said = [*evidence.published[:2], message(row(2, "A", "B")), evidence.published[3]]
    parted = replace(
        evidence,
        rows=rows,
        published=[*said, message(told)],
        committed={**evidence.committed, (MERGES, 0): 3},
        turns={**evidence.turns, ("acme", "u"): 29},
        windows=[evidence.windows[0]._replace(times=(AT, AT + 100), exceeding=(AT + 100,))],
    )
    assert check(history, parted, Promise()) == []


def test_there_need_be_no_windows_where_no_filter_watches_what_is_stored() -> None:
    """Nobody asked for any."""
    history, evidence = good()
    other = [WATCH._replace(event_type="Email Open")]
    assert check(history, replace(evidence, windows=[], filters=other), Promise()) == []


def test_what_a_record_asks_for_is_read_from_its_bytes() -> None:
    """As the contract says: the type normalised, the record's time where it names none."""
    body = {"org_unit": "acme", "lead_id": "A", "event_type": " page_view-"}
    said = {**body, "id": "e", "timestamp": "2026-01-01T12:00:00.1239+01:00", "metadata": {"n": 1}}
    plain = asked(Record(0, AT, b"A", json.dumps(body).encode()))
    assert plain == Asked("acme", None, "A", "Page View", AT, "{}")
    whole = asked(Record(0, AT, b"A", json.dumps(said).encode()))
    assert whole == Asked("acme", "e", "A", "Page View", 1_767_265_200_123, '{"n": 1}')


@pytest.mark.parametrize("lead", ["A", "A:x", "A:", "A:x:x", "a:b:1", "\x1f\n", "{0}:"])
def test_a_window_is_found_under_the_name_that_the_product_gives_it(lead: str) -> None:
    """Whatever the lead is called; its exceeding events are no window."""
    velocity = VelocityFilter("vf", "VF", 1, "Page View", 1, 1_000, True, 2, None)
    touched = Touched(0, Kind("acme", velocity, 7, 0, odd=lead.endswith(EXCEEDING)), lead, [])
    key = f"{LAYOUT}:{{0}}:ab12:{touched.suffix}"
    assert window_named(key) == (f"{LAYOUT}:{{0}}", b"ab12", 2, 7, "acme", lead)
    assert window_named(key + EXCEEDING) is None
