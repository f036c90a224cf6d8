"""The oracle follows the text: one small example for each rule."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.oracle import Oracle, Order
from tests.oracle_compare import same_json
from tests.oracle_conditions import satisfies
from tests.oracle_filters import FilterBook
from tests.oracle_parse import Message, milliseconds, normalise

START = 1_790_000_000_000
ORDERS: tuple[Order, ...] = ("velocity,metadata", "metadata,velocity")


def _velocity(id_: str = "v", n: int = 1, width: int = 100, **more: Any) -> dict[str, Any]:
    basic = {"id": id_, "name": id_, "event_type": "open", "threshold": n, "window_ms": width}
    return basic | more


def _document(*velocity: dict[str, Any], metadata: Sequence[Any] = ()) -> dict[str, Any]:
    kinds = {"velocity_filters": list(velocity), "metadata_filters": list(metadata)}
    return {"org_units": {"o": kinds}}


class Told:
    """Feeds events by a few words and remembers their ids."""

    def __init__(self, document: dict[str, Any], order: Order = "velocity,metadata") -> None:
        self.oracle = Oracle(order)
        self.oracle.apply(document)
        self._offset = 0

    def event(self, id_: str, at: int, lead: str = "a", **more: Any) -> str | None:
        """The reason of an event at START + ``at`` ms."""
        value = {"org_unit": "o", "id": id_, "lead_id": lead, "event_type": "open"} | more
        self._offset += 1
        place = Message("t", 0, self._offset, START + at, None, json.dumps(value).encode())
        self.oracle.feed(place)
        return self.oracle.rows["o", id_].reason

    def merge(self, target: str, *sources: str, kind: str = "merge") -> str:
        """What became of a merge message."""
        value = {"org_unit": "o", "target_lead_id": target, "source_lead_ids": sources}
        self._offset += 1
        encoded = json.dumps(value | {"kind": kind}).encode()
        return self.oracle.merge(Message("m", 0, self._offset, START, None, encoded))


def test_an_event_exceeds_when_more_than_n_stand_in_the_half_open_window() -> None:
    """S2: (t - W, t], itself included, so an event exactly W old no longer counts."""
    told = Told(_document(_velocity(n=1)))
    assert told.event("1", 0) is None
    assert told.event("2", 100) is None
    assert told.event("3", 199) == "inorganic"
    assert told.event("4", 50) == "inorganic"
    assert told.event("5", 1_000) is None


def test_an_event_in_the_future_of_another_does_not_count_for_it() -> None:
    """S2: only what occurred up to t counts, however the messages came."""
    told = Told(_document(_velocity(n=1)))
    assert [told.event("1", 50), told.event("2", 40), told.event("3", 50)] == [
        None,
        None,
        "inorganic",
    ]


def test_the_first_of_a_burst_scores_and_an_event_exactly_a_window_away_begins_another() -> None:
    """S4: strictly less than W away, on either side."""
    told = Told(_document(_velocity(n=0, keep_first=True)))
    reasons = [told.event(str(at), at) for at in (0, 99, 199, 298, -100, -1)]
    assert reasons == [
        None,
        "inorganic_grouped",
        None,
        "inorganic_grouped",
        None,
        "inorganic_grouped",
    ]
    bursts = [told.oracle.rows["o", i].by.opinion.inherited for i in ("99", "298")]  # type: ignore[union-attr]
    assert bursts == [{"0"}, {"199"}]


def test_an_event_between_two_bursts_may_join_either_and_bursts_never_fuse() -> None:
    """S4: the burst is that of any such event."""
    told = Told(_document(_velocity(n=0, keep_first=True)))
    told.event("left", 0)
    told.event("right", 150)
    assert told.event("between", 75) == "inorganic_grouped"
    by = told.oracle.rows["o", "between"].by
    assert by is not None
    assert by.opinion is not None
    assert by.opinion.inherited == {"left", "right"}


def test_any_filter_that_says_inorganic_wins_and_the_smallest_id_is_recorded() -> None:
    """S6: ids compare by bytes."""
    keep = _velocity("a-keep", n=0, width=200, keep_first=True)
    told = Told(_document(keep, _velocity("é", n=1), _velocity("z", n=1)))
    assert told.event("1", 0) is None
    assert told.event("2", 1) == "inorganic"
    assert told.oracle.rows["o", "2"].by.filter.id == "z"  # type: ignore[union-attr]
    assert told.event("3", 150) == "inorganic_grouped"


def test_a_suppressed_first_of_a_burst_is_not_replaced_by_the_next() -> None:
    """S6: null is only one filter's opinion, and the next does not inherit its place."""
    told = Told(_document(_velocity("keep", keep_first=True), _velocity("off", width=10)))
    reasons = [told.event(str(at), at) for at in (0, 5, 50)]
    assert reasons == [None, "inorganic", "inorganic_grouped"]


def test_a_matched_event_counts_only_when_velocity_comes_first() -> None:
    """S8."""
    bots = {"id": "m", "name": "m", "conditions": [{"key": "bot", "operator": "exists"}]}
    reasons = []
    for order in ORDERS:
        told = Told(_document(_velocity(n=1), metadata=[bots]), order)
        reasons.append([told.event(str(n), n, metadata={"bot": 1}) for n in range(2)])
        reasons.append([told.event("x", 3), told.event("y", 4)])
    matched, organic, fast = "metadata_filter", None, "inorganic"
    assert reasons == [[matched, fast], [fast, fast], [matched, matched], [organic, fast]]


def test_a_known_id_leaves_no_trace_and_keeps_its_first_verdict() -> None:
    """S9: another body, lead or time changes nothing."""
    told = Told(_document(_velocity(n=1)))
    told.event("1", 0)
    told.event("1", 1, lead="b")
    told.event("1", 2)
    assert [told.event("2", 500), told.event("3", 10, lead="b")] == [None, None]
    assert len(told.oracle.duplicates) == 2


def test_a_new_filter_starts_from_the_stored_past_and_a_new_name_changes_nothing() -> None:
    """S10: as if it had always been there, bursts included."""
    told = Told({"org_units": {"o": {}}})
    told.event("1", 0)
    told.event("2", 10)
    told.oracle.apply(_document(_velocity(n=1, keep_first=True)))
    assert told.event("3", 20) == "inorganic_grouped"
    told.oracle.apply(_document(_velocity(n=1, keep_first=True, name="other")))
    assert told.event("4", 105) == "inorganic_grouped"
    by = told.oracle.rows["o", "4"].by
    assert by is not None
    assert (by.filter.version, by.filter.name) == (2, "other")
    assert by.opinion is not None
    assert by.opinion.inherited == {"2"}


def test_versions_count_changes_that_change_something_and_go_on() -> None:
    """S1: an equal filter keeps its version, whatever its type's spelling."""
    book = FilterBook().apply(_document(_velocity()))
    book = book.apply(_document(_velocity(event_type="OPEN")))
    assert book.filters["o", "v"].version == 1
    book = book.apply(_document(_velocity(n=5)))
    book = book.apply(_document())
    assert book.apply(_document(_velocity(n=5))).filters["o", "v"].version == 3


def test_a_merge_unites_windows_and_bursts_and_revises_nothing() -> None:
    """M1, M2, M4, M5."""
    told = Told(_document(_velocity(n=1), _velocity("k", n=0, keep_first=True)))
    assert [told.event("1", 0, "a"), told.event("2", 10, "b")] == [None, None]
    assert told.merge("a", "b", "b", "a", "none") == "stored"
    assert told.event("3", 20, "b") == "inorganic"
    row = told.oracle.rows["o", "3"]
    assert (told.oracle.root(row), told.oracle.original(row)) == ("a", "b")
    merged = [r for r in told.oracle.rows.values() if r.raw.event_type == "Lead Merged"]
    assert [r.raw.metadata for r in merged] == [
        {"source_lead_ids": ["b", "none"], "events_moved": 1, "requested_by": None}
    ]
    assert told.oracle.rows["o", "2"].reason is None


def test_chains_lead_to_the_last_survivor_and_cycles_do_nothing() -> None:
    """M3: A's events are C's and keep original A; itself, a cycle and a repeat are no-ops."""
    told = Told(_document())
    told.event("1", 0, "a")
    fates = [told.merge("b", "a"), told.merge("c", "b")]
    fates += [told.merge("a", "c"), told.merge("c", "c"), told.merge("b", "a")]
    assert fates == ["stored", "stored", "no_op", "no_op", "no_op"]
    row = told.oracle.rows["o", "1"]
    assert (told.oracle.root(row), told.oracle.original(row)) == ("c", "a")
    moved = [r.raw.metadata["events_moved"] for r in told.oracle.rows.values() if r.raw.metadata]
    assert moved == [1, 2]


def test_an_unmerge_takes_back_one_merge_and_what_came_before_it_stays_together() -> None:
    """M7: leads merged into a source leave with it, leads merged into the target stay."""
    told = Told(_document())
    ids = [told.event(lead, 0, lead) for lead in "abcd"]
    assert ids == [None] * 4
    told.merge("b", "a")
    told.merge("c", "b", "d")
    told.merge("c", "b", kind="unmerge")
    roots = [told.oracle.root(told.oracle.rows["o", lead]) for lead in "abcd"]
    assert roots == ["b", "b", "c", "c"]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.0019z", 1),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1970-01-01T00:00:00.5+00:30", -1_799_500),
        ("2024-02-29T00:00:00-23:59", 1_709_251_140_000),
    ],
)
def test_times_are_cut_to_milliseconds(text: str, at: int) -> None:
    """Section 2: further decimals are cut, not rounded."""
    assert milliseconds(text) == at


def test_event_types_are_title_case_words() -> None:
    """Section 2: one type, however it is written."""
    spellings = ["page_view", "Page View", "PAGE-VIEW", "\u2003page__-view "]
    assert {normalise(s) for s in spellings} == {"Page View"}
    assert normalise("_- \t") == ""


def test_a_literal_key_wins_over_a_path() -> None:
    """S7: the literal top-level key is looked at first, null or not."""
    condition = {"key": "a.b", "operator": "equals", "value": "x"}
    assert satisfies(condition, {"a": {"b": "x"}})
    assert not satisfies(condition, {"a": {"b": "x"}, "a.b": None})


def test_true_is_not_one_and_a_decimal_may_be_written_as_an_integer() -> None:
    """JSON compares as the contract keeps it: integers exact, other numbers as doubles."""
    assert same_json({"a": [1e300, 2.0]}, {"a": [10**300, 2]})
    assert not same_json(True, 1)
    assert not same_json(2**63, 2**63 + 1)
