"""The recount and the oracle agree with a right processor, with each other, and catch each known way to be wrong."""

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import orjson
import pytest

from processor.demo.recount import once_united, read_filters, recounted
from processor.demo.recount_check import Checker, Merges, Report
from processor.demo.recount_fold import Stored
from tests.oracle import Oracle, Order
from tests.oracle_compare import row_problems
from tests.oracle_conditions import satisfies
from tests.oracle_filters import Attribute, FilterBook, Velocity
from tests.oracle_model import FAULTS, Fault, Model
from tests.oracle_parse import Message
from tests.traffic import Shape, as_messages, stream
from tests.traffic_filters import FIRST

START = 1_790_000_000_000
ORDERS: tuple[Order, ...] = ("velocity,metadata", "metadata,velocity")
UNMERGED = Merges({}, set())
Row = dict[str, Any]


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "holds"),
    [
        ("equals", "true", True, True),
        ("equals", 5, 5.0, True),
        ("equals", 5, "5", True),
        ("equals", True, 1, False),
        ("equals", "a", ["b", ["a"], "A"], True),
        ("equals", "a", [["a"]], False),
        ("not_equals", "a", None, True),
        ("not_equals", "a", ["b", "a"], False),
        ("contains", "SS", "Straße", True),
        ("contains", "x", {"x": "x"}, False),
        ("not_contains", "x", {"x": "x"}, True),
        ("starts_with", "a", ["a"], False),
        ("in", ["x", 7], "7", True),
        ("gt", "9", "10", True),
        ("gt", 0, True, False),
        ("lt", 0, "-1e3", True),
        ("lt", 0, "minus", False),
        ("exists", None, None, True),
        ("matches", "^b.T$", "BOT", True),
        ("in_cidr", "10.0.0.9/8", "::ffff:10.1.1.1", True),
        ("in_cidr", ["::ffff:10.0.0.0/104"], "10.1.1.1", True),
        ("in_cidr", "10.0.0.0/8", 167_772_161, False),
    ],
)
def test_conditions_hold_as_the_text_says(
    operator: str, wanted: Any, value: Any, holds: Any
) -> None:
    """S7, read alike by the oracle and the recount."""
    condition = {"key": "k", "operator": operator, "value": wanted}
    mine = {"id": "m", "name": "m", "conditions": [condition]}
    document = {"org_units": {"o": {"metadata_filters": [mine]}}}
    assert satisfies(condition, {"k": value}) is holds
    attribute = read_filters(_records(FilterBook().apply(document)))["o"]
    assert attribute.attributes[0].holds({"k": value}) is holds


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(3))
def test_oracle_and_recount_agree_with_a_right_processor(order: Order, seed: int) -> None:
    """However its batches fell and whatever was redelivered (S12)."""
    oracle, rows = _both(order, seed, None)
    assert row_problems(oracle, rows) == []
    report = _recounted(oracle.book, rows, order)
    assert report.mismatches == []
    assert report.exact == len(rows)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_known_fault_makes_both_checks_fail(fault: Fault) -> None:
    """A check that cannot fail proves nothing."""
    oracle, rows = _both("velocity,metadata", 1, fault)
    assert row_problems(oracle, rows)
    assert not _recounted(oracle.book, rows, "velocity,metadata").agrees


def _both(order: Order, seed: int, fault: Fault | None) -> tuple[Oracle, list[dict[str, Any]]]:
    """The same stream through the oracle and the model."""
    made = stream(Shape(seed, START, count=1_200, partitions=1))
    messages = as_messages([*made.halves[0], *made.halves[1]], "events.raw", [0])
    oracle = Oracle(order)
    oracle.apply(FIRST)
    for message in messages:
        oracle.feed(message)
    return oracle, Model(oracle.book, order, fault).run(messages, seed)


def _recounted(book: FilterBook, rows: Iterable[dict[str, Any]], order: str) -> Report:
    stored = [_stored(row) for row in sorted(rows, key=_processing_order)]
    return recounted(Checker(read_filters(_records(book)), UNMERGED, order), stored)


def _processing_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    window = row["org_unit"].encode(), row["lead_id"].encode(), row["event_type"].encode()
    return *window, row["batch"], row["source_offset"]


def _stored(row: dict[str, Any]) -> Stored:
    by = row["suppressed_by"]
    json_columns = {
        "metadata": orjson.dumps(row["metadata"]).decode(),
        "suppressed_by": None if by is None else orjson.dumps(by).decode(),
    }
    renamed = {"at": row["occurred_at"], "source": str(row["source_partition"]), "deleted": False}
    fields = {**row, **json_columns, **renamed}
    return Stored(**{name: fields[name] for name in Stored._fields})


def _records(book: FilterBook) -> list[dict[str, Any]]:
    """The book as the table ``filters`` holds it."""
    records = []
    for (org_unit, _), f in book.filters.items():
        record = f.__dict__ | {"org_unit": org_unit, "revision": 2, "in_force": f.enabled}
        if isinstance(f, Velocity):
            records.append(record | {"kind": "velocity"})
        if isinstance(f, Attribute):
            conditions = orjson.dumps(f.conditions).decode()
            records.append(record | {"kind": "metadata", "conditions": conditions})
    return records


def _changed(**fields: Any) -> Callable[[Row], Row]:
    return lambda row: row | fields


MERGED: dict[str, tuple[Callable[[Row], Row], str]] = {
    "under a lead that is merged away": (_changed(lead_id="b", original_lead_id=None), "lead is"),
    "an original that is the lead": (_changed(original_lead_id="a"), "the original lead"),
    "an original that is nobody's": (_changed(original_lead_id="x"), "lead is"),
    "a filter that does not exist": (
        lambda row: row | {"suppressed_by": row["suppressed_by"] | {"filter_id": "vf-x"}},
        "no such filter",
    ),
    "a burst nobody began": (
        lambda row: row | {"suppressed_by": row["suppressed_by"] | {"burst_id": "x"}},
        "reason is",
    ),
    "more events than there are": (
        lambda row: row | {"suppressed_by": row["suppressed_by"] | {"count": 99}},
        "count is 99",
    ),
    "no reason, but a filter": (_changed(suppression_reason=None), "suppressed_by is"),
}


def _merged_rows() -> tuple[FilterBook, list[Row]]:
    """Six page views of a and b, b merged into a afterwards."""
    book = FilterBook().apply(FIRST)
    model = Model(book, "velocity,metadata", None)
    events = [
        {"org_unit": "acme", "id": str(n), "lead_id": "a", "event_type": "page view"}
        for n in range(6)
    ]
    rows = model.run([_message(n, event) for n, event in enumerate(events)], 0)
    return book, [*rows[:5], rows[5] | {"original_lead_id": "b"}]


def _message(offset: int, event: Row) -> Message:
    return Message("events.raw", 0, offset, START + offset, None, orjson.dumps(event))


def _recounted_after_merge(
    book: FilterBook, rows: list[Row], parted: Set[tuple[str, str]] = frozenset()
) -> Report:
    merges = Merges({("acme", "b"): "a"}, set(), parted)
    checker = Checker(read_filters(_records(book)), merges, ORDERS[0])
    return recounted(checker, map(_stored, rows))


def test_a_merged_lead_is_checked_for_what_is_possible() -> None:
    """Its order around the merge is not defined, so any possible verdict passes."""
    book, rows = _merged_rows()
    report = _recounted_after_merge(book, rows)
    assert (report.mismatches, report.exact, report.plausible) == ([], 0, 6)
    assert rows[5]["suppression_reason"] == "inorganic_grouped"


@pytest.mark.parametrize("wrong", MERGED)
def test_what_cannot_be_after_a_merge_is_found(wrong: str) -> None:
    """Lead, original and provenance."""
    book, rows = _merged_rows()
    change, expected = MERGED[wrong]
    report = _recounted_after_merge(book, [*rows[:5], change(rows[5])])
    assert any(m.problem.startswith(expected) for m in report.mismatches), report.mismatches


def test_a_verdict_may_rest_on_events_that_an_unmerge_has_given_back() -> None:
    """Then its burst began with somebody else's event; whatever else it claims must hold all the same."""
    book, rows = _merged_rows()
    by = rows[5]["suppressed_by"]
    elsewhere = rows[5] | {"suppressed_by": by | {"burst_id": "x", "count": 99}}
    parted = once_united([("acme", "a", "c", True)])
    assert _recounted_after_merge(book, [*rows[:5], elsewhere], parted).agrees
    few = rows[5] | {"suppressed_by": by | {"count": by["threshold"]}}
    assert not _recounted_after_merge(book, [*rows[:5], few], parted).agrees


def test_leads_were_united_as_far_as_any_merge_reached() -> None:
    """Of their org unit; merges that were never taken back alone separate nobody."""
    edges = [
        ("acme", "a", "b", True),
        ("acme", "c", "b", False),
        ("acme", "d", "e", False),
        ("globex", "e", "b", False),
    ]
    assert once_united(edges) == {("acme", "a"), ("acme", "b"), ("acme", "c")}


def test_rows_judged_by_older_rules_are_members_but_not_checked() -> None:
    """Their filters said something else."""
    book, rows = _merged_rows()
    older = [row | {"rules": 1, "suppression_reason": "inorganic"} for row in rows[:4]]
    kept = [*older, rows[4] | {"original_lead_id": None}]
    checker = Checker(read_filters(_records(book)), UNMERGED, ORDERS[0])
    report = recounted(checker, map(_stored, kept))
    assert (report.mismatches, report.older, report.exact) == ([], 4, 1)
