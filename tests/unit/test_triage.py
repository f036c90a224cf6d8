"""What an event meets before its past is asked: one attribute filter that matches, and the windows it enters."""

from typing import Any

import pytest

from processor.pure.triage import looks, triage
from processor.pure.types import Case, FilterOrder, OrgRules, Root, Rules
from tests.unit.decision_records import a_filter, an_attribute, an_event

ROOT = Root("survivor", 5)
VIEWS = (a_filter("v1", 1), a_filter("v2", 2))


def rules(order: FilterOrder = "velocity,metadata", **attributes: Any) -> Rules:
    """Rules of acme: two velocity filters on page views, and these attribute filters by type."""
    by_type = {name.replace("_", " "): tuple(found) for name, found in attributes.items()}
    every = by_type.pop("every", ())
    units = {"acme": OrgRules({"Page View": VIEWS}, {"": every, **by_type})}
    return Rules(1, order, units)


def judged(given: Rules, counted: bool | None = None, **event: Any) -> Case:
    """The case of an event."""
    return triage(an_event(**event), ROOT, given, counted=counted)


def test_a_case_has_the_event_and_its_surviving_lead() -> None:
    """As they were given."""
    event = an_event()
    case = triage(event, ROOT, rules())
    assert (case.event, case.root) == (event, ROOT)


def test_an_event_enters_the_windows_of_its_type() -> None:
    """Of all filters that watch it, and no others."""
    case = judged(rules())
    assert (case.counted, case.watching, case.matched) == (True, VIEWS, None)
    assert judged(rules(), event_type="Form Submit").watching == ()


def test_an_org_unit_without_filters_counts_everything() -> None:
    """A filter created later starts from there."""
    case = judged(rules(), org_unit="other", metadata={"bot": 1})
    assert (case.counted, case.watching, case.matched) == (True, (), None)


@pytest.mark.parametrize(
    ("order", "counted"), [("velocity,metadata", True), ("metadata,velocity", False)]
)
def test_the_order_says_whether_a_matched_event_is_counted(
    order: FilterOrder, counted: bool
) -> None:
    """An event that matches nothing always is."""
    given = rules(order, every=[an_attribute()])
    case = judged(given, metadata={"bot": 1})
    assert case.matched is not None
    assert (case.counted, case.watching) == (counted, VIEWS if counted else ())
    assert judged(given).counted


@pytest.mark.parametrize("order", ["velocity,metadata", "metadata,velocity"])
@pytest.mark.parametrize("stored", [True, False])
def test_an_event_that_has_a_row_is_counted_as_its_row_says(
    order: FilterOrder, stored: bool
) -> None:
    """Whatever filters say now."""
    for metadata in ({}, {"bot": 1}):
        case = judged(rules(order, every=[an_attribute()]), counted=stored, metadata=metadata)
        assert (case.counted, case.watching) == (stored, VIEWS if stored else ())


def test_the_first_filter_that_matches_is_recorded() -> None:
    """Filters come ascending by id."""
    given = rules(every=[an_attribute("a", key="x"), an_attribute("b"), an_attribute("c")])
    matched = judged(given, metadata={"bot": 1}).matched
    assert matched is not None
    assert matched.id == "b"


def test_a_type_that_filters_name_has_its_own_list() -> None:
    """It holds those for every type as well; the other types have the list of those alone."""
    every, own = an_attribute("a", key="x"), an_attribute("b", "Page View")
    given = rules(every=[every], Page_View=[every, own])
    assert judged(given, metadata={"bot": 1}).matched is own
    assert judged(given, metadata={"x": 1, "bot": 1}).matched is every
    assert judged(given, metadata={"bot": 1}, event_type="Other").matched is None
    assert judged(given, metadata={"x": 1}, event_type="Other").matched is every
    assert judged(rules(Page_View=[]), metadata={"bot": 1}).matched is None


def test_without_filters_for_every_type_an_unnamed_type_matches_nothing() -> None:
    """There is no list for it at all."""
    units = {"acme": OrgRules({}, {"Page View": (an_attribute(event_type="Page View"),)})}
    given = Rules(1, "velocity,metadata", units)
    assert judged(given, metadata={"bot": 1}, event_type="Other").matched is None


def test_every_filter_for_the_type_looks_at_an_event() -> None:
    """Of either kind, those for every type included; none of another org unit's."""
    given = rules(every=[an_attribute("any")], Form_Submit=[an_attribute("a"), an_attribute("b")])
    views, forms = an_event("v"), an_event("f", event_type="Form Submit")
    assert looks([views, views], given) == 2 * 3
    assert looks([forms], given) == 2
    assert looks([views, forms, an_event("x", org_unit="other")], given) == 3 + 2
