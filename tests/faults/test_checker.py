"""The checker finds nothing in a history that is as it must be, and names the invariant of each thing that is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.checker import Promise, check
from tests.faults.evidence import Evidence, Filter, Held, Published, Row
from tests.faults.history import Asked, History, Merge, Sent

RAW, MERGES = "raw", "merges"
AT = 1_767_268_800_000
WATCH = Filter("acme", "vf", "Page View", 1, 1_000, keep_first=True, revision=2)
BURST = '{"2": "b"}'
BY = '{"filter_id": "vf"}'


def row(n: int, lead: str = "A", original: str | None = None, **more: object) -> Row:
    """The event of the record at offset `n`, 100 ms after the one before."""
    reason = "inorganic_grouped" if n else None
    plain = Row(
        *("acme", f"e{n}", lead, original, "Page View", "{}", reason, BY if n else None),
        *(AT + 100 * n, RAW, 0, n, 2, True, BURST if n else None, False),
    )
    return plain._replace(**more)  # type: ignore[arg-type]


def good() -> tuple[History, Evidence]:
    """Two events of A and one of B, which was merged into A; a bad message; one deleted event."""
    history = History(
        [
            Sent(RAW, 0, 0, Asked("acme", "e0", "A")),
            Sent(RAW, 0, 1, Asked("acme", "e1", "A")),
            Sent(RAW, 0, 2, Asked("acme", "e2", "B")),
            Sent(RAW, 0, 3, None),
            Sent(RAW, 0, 4, Asked("acme", "e0", "A")),
            Sent(MERGES, 0, 0, Merge("acme", "A", ("B",), "merge")),
        ],
        {("acme", "e1")},
    )
    rows = [row(0), row(1, deleted=True), row(2, "A", "B")]
    by = {"filter_id": "vf"}
    return history, Evidence(
        rows=rows,
        published=[
            Published(
                "acme", r.id, r.lead_id, None, r.suppression_reason, by if r.suppressed_by else None
            )
            for r in rows
        ],
        letters=[(RAW, 0, 3)],
        committed={(RAW, 0): 5, (MERGES, 0): 1},
        filters=[WATCH],
        epochs={("acme", "A"): 7},
        windows=[
            Held(
                "acme",
                "A",
                7,
                2,
                AT - 10_000,
                (AT, AT + 100, AT + 200),
                (AT + 100, AT + 200),
            )
        ],
        recovery_s=3.0,
        most_rss_mb=100.0,
    )


def test_nothing_is_wrong_with_what_is_as_it_must_be() -> None:
    """A duplicate has its original's row, a deleted event a tombstone, a merged one its original lead."""
    assert check(*good(), Promise()) == []


def _rows(change: Callable[[list[Row]], list[Row]]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, rows=change(evidence.rows))


def _held(**change: object) -> Callable[[Evidence], Evidence]:
    return lambda e: replace(e, windows=[e.windows[0]._replace(**change)])  # type: ignore[arg-type]


BROKEN: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "an event below the commit has no row": ("I1", _rows(lambda rows: rows[:2])),
    "a bad message has no letter": ("I1", lambda e: replace(e, letters=[])),
    "an id has two rows": ("I2", _rows(lambda rows: [*rows, rows[0]])),
    "a row was never sent": (
        "I2",
        _rows(lambda rows: [*rows, rows[0]._replace(id="x", source_offset=99)]),
    ),
    "a verdict is published that is not stored": (
        "I3",
        lambda e: replace(
            e,
            published=[e.published[0]._replace(suppression_reason="inorganic"), *e.published[1:]],
        ),
    ),
    "a verdict is published with other provenance": (
        "I3",
        lambda e: replace(
            e, published=[*e.published[:2], e.published[2]._replace(suppressed_by={})]
        ),
    ),
    "the recount disagrees": ("I3", lambda e: replace(e, recount=["e0 should be inorganic"])),
    "an event is not published": ("I4", lambda e: replace(e, published=e.published[1:])),
    "an event is published twice": (
        "I4",
        lambda e: replace(e, published=[*e.published, e.published[0]]),
    ),
    "a bad message has two letters": ("I4", lambda e: replace(e, letters=e.letters * 2)),
    "a good message has a letter": ("I4", lambda e: replace(e, letters=[*e.letters, (RAW, 0, 0)])),
    "an event stays with a merged lead": (
        "I5",
        _rows(lambda rows: [*rows[:2], rows[2]._replace(lead_id="B", original_lead_id=None)]),
    ),
    "a moved event forgets its original": (
        "I5",
        _rows(lambda rows: [*rows[:2], rows[2]._replace(original_lead_id=None)]),
    ),
    "a window lacks a member": ("I6", _held(times=(AT, AT + 200))),
    "a window has one too many": ("I6", _held(times=(AT - 50, AT, AT + 100, AT + 200))),
    "a window lacks its burst": ("I6", _held(exceeding=())),
    "a window has a burst of no row": ("I6", _held(exceeding=(AT + 100, AT + 200, AT + 5_000))),
    "a window counts what nobody stored": ("I6", _held(times=(AT, AT + 100, AT + 200, AT + 9_000))),
    "something is not committed": (
        "I7",
        lambda e: replace(e, committed={**e.committed, (RAW, 0): 4}),
    ),
    "progress took too long": ("I7", lambda e: replace(e, recovery_s=61.0)),
    "a deleted event is back": (
        "I8",
        _rows(lambda rows: [rows[0], rows[1]._replace(deleted=False), rows[2]]),
    ),
    "a worker is too large": ("I9", lambda e: replace(e, most_rss_mb=301.0)),
    "a window grows without bound": (
        "I9",
        _held(times=(*[AT] * 20_000, AT + 100, AT + 200)),
    ),
}


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
