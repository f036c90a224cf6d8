"""Previews against brute force and against the workers' fold in one go: chunks, late events and bursts change nothing."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from processor.pure.attributes import compile_conditions
from processor.pure.preview import Preview, Times, stored_event
from processor.pure.tally import DAY_MS, SAMPLES, Tally
from processor.pure.triage import triage
from processor.pure.types import AttributeFilter, Event, OrgRules, Rules, Ruling, VelocityFilter
from processor.pure.velocity import decide
from tests.unit.conditions import Condition

ORG, TYPE = "acme", "Page View"
Row: TypeAlias = tuple[Event, bool]
"""With whether it was counted."""


def watching(threshold: int, window_ms: int, keep_first: bool) -> VelocityFilter:
    """A velocity filter."""
    return VelocityFilter(
        id="vf",
        name="Bursts",
        version=1,
        event_type=TYPE,
        threshold=threshold,
        window_ms=window_ms,
        keep_first=keep_first,
        revision=1,
        newest=None,
    )


def previewed(velocity: VelocityFilter) -> Preview:
    """The preview of a velocity filter."""
    org_rules = OrgRules(velocity={TYPE: (velocity,)}, attributes={})
    return Preview(Rules(1, "velocity,metadata", {ORG: org_rules}), velocity)


def row(lead_id: str, event_id: str, at: int, **more: Any) -> Row:
    """A row."""
    given = {"event_type": TYPE, "metadata": {}, "counted": True, **more}
    fields = (lead_id, event_id, given["event_type"], given["metadata"], at)
    return stored_event(ORG, fields), given["counted"]


def chunked(rows: Sequence[Row], sizes: Sequence[int]) -> list[list[Row]]:
    """Cut where it may be cut."""
    chunks, left, n = [], list(rows), 0
    while left:
        size = sizes[n % len(sizes)]
        chunks.append(left[:size])
        left, n = left[size:], n + 1
    return chunks


def brute(rows: Sequence[Row], velocity: VelocityFilter) -> list[str | None]:
    """The semantics word by word, event by event over all that came before."""
    reasons: list[str | None] = []
    before: list[tuple[Event, bool]] = []
    for one, counted in rows:
        exceeds, grouped = False, False
        if counted:
            near = [(o, x) for o, x in before if o.lead_id == one.lead_id]
            low = one.occurred_at - velocity.window_ms
            count = 1 + sum(low < o.occurred_at <= one.occurred_at for o, _ in near)
            exceeds = count > velocity.threshold
            grouped = any(
                x and abs(o.occurred_at - one.occurred_at) < velocity.window_ms for o, x in near
            )
            before.append((one, exceeds))
        reason = "inorganic_grouped" if grouped else None
        reasons.append((reason if velocity.keep_first else "inorganic") if exceeds else None)
    return reasons


ROWS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(-30, 60), st.booleans() | st.just(True)),
    max_size=60,
)


@given(
    ROWS,
    st.integers(0, 4),
    st.sampled_from([1, 2, 7, 20, 1_000]),
    st.booleans(),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_a_preview_says_what_brute_force_says(
    events: list[tuple[str, int, bool]],
    threshold: int,
    window_ms: int,
    keep_first: bool,
    sizes: list[int],
) -> None:
    """Lead by lead, in processing order, in chunks of any size."""
    velocity = watching(threshold, window_ms, keep_first)
    ordered = sorted(events, key=lambda one: one[0])
    rows = [row(lead, f"e{n}", at, counted=c) for n, (lead, at, c) in enumerate(ordered)]
    preview = previewed(velocity)
    said = [ruling for chunk in chunked(rows, sizes) for ruling in preview.judge(chunk)]
    assert [ruling.reason for ruling in said] == brute(rows, velocity)
    assert all(ruling.suppressed_by is None or counts(ruling, velocity) for ruling in said)


def counts(ruling: Ruling, velocity: VelocityFilter) -> bool:
    """What is told of a suppressed event: a count over the threshold, a burst where there is one."""
    by = ruling.suppressed_by or {}
    count = by["count"]
    return (
        isinstance(count, int)
        and count > velocity.threshold
        and ("burst_id" in by) == velocity.keep_first
    )


def test_nothing_to_judge_is_judged() -> None:
    """An empty range."""
    assert previewed(watching(0, 1, keep_first=True)).judge([]) == []


def test_an_attribute_filter_matches_as_a_worker_matches() -> None:
    """Rows in any order; those that were not counted are judged too."""
    matches = compile_conditions([Condition("k", "equals", "x")])
    attribute = AttributeFilter("mf", "Bots", 1, "", matches)
    rules = Rules(
        1, "velocity,metadata", {ORG: OrgRules(velocity={}, attributes={"": (attribute,)})}
    )
    rows = [
        row("A", "1", 0, metadata={"k": "X"}),
        row("B", "2", 0, metadata={"k": "X"}, counted=False),
        row("A", "3", 0, metadata={"k": ["y", "x"]}, event_type="Other"),
        row("A", "4", 0, metadata={"k": "xx"}),
    ]
    rulings = Preview(rules, None).judge(rows)
    reasons = [ruling.reason for ruling in rulings]
    assert reasons == ["metadata_filter"] * 3 + [None]
    cases = [triage(r.case.event, r.case.root, rules, counted=r.case.counted) for r in rulings]
    assert [r.reason for r in decide(cases, [()] * 4, {}, 1)] == reasons


@given(st.lists(st.integers(-50, 50), max_size=300), st.integers(-60, 60), st.integers(0, 80))
def test_times_are_counted_exactly_up_to_what_is_asked(
    times: list[int], above: int, width: int
) -> None:
    """Over any number of blocks, repeats included."""
    kept = Times(4)
    for at in times:
        kept.add(at)
    exact = sum(above < at <= above + width for at in times)
    assert kept.count(above, above + width, 1_000) == exact
    for enough in (0, 3, exact):
        found = kept.count(above, above + width, enough)
        assert found == exact if exact <= enough else enough < found <= exact


def told(
    velocity: VelocityFilter, rows: Sequence[Row], today: Sequence[tuple[bool, bool]] = ()
) -> Tally:
    """What is told of rows, all of them in the range, two at a time."""
    tally, preview = Tally(), previewed(velocity)
    flags = today or [(False, False)] * len(rows)
    for n in range(0, len(rows), 2):
        rulings = preview.judge(rows[n : n + 2])
        tally.add([(r, *flag) for r, flag in zip(rulings, flags[n : n + 2], strict=True)])
    return tally


def test_a_tally_counts_events_leads_and_days() -> None:
    """Days before 1970 too; days without events are left out."""
    rows = [
        row("A", "1", -1),
        row("A", "2", 0),
        row("B", "3", 5 * DAY_MS),
        row("B", "4", 5 * DAY_MS + 1),
    ]
    tally = told(watching(1, 10, keep_first=False), rows)
    assert (tally.events, tally.suppressed, tally.leads) == (4, 2, 2)
    assert list(tally.days) == [(-1, 1, 0), (0, 1, 1), (5, 2, 1)]


def test_a_tally_compares_with_what_is_stored() -> None:
    """Newly, anyway, and no longer."""
    rows = [row("A", str(n), n * 100) for n in range(5)]
    # The first is not over the threshold, and was suppressed by the filter.
    today = [(True, True), (True, False), (True, True), (False, False), (False, False)]
    tally = told(watching(1, 1_000, keep_first=False), rows, today)
    assert (tally.suppressed, tally.newly, tally.no_longer) == (4, 2, 1)


def test_samples_are_the_newest_newest_first() -> None:
    """By time, then id; in whatever order they come."""
    rows = [row("A", f"{n % 7}-{n}", (n * 37 % 50)) for n in range(100)]
    tally = told(watching(0, 1, keep_first=False), rows)
    newest = sorted(((e.occurred_at, e.id) for e, _ in rows), reverse=True)[:SAMPLES]
    assert [(s.occurred_at, s.id) for s in tally.samples] == newest
    assert {sample.reason for sample in tally.samples} == {"inorganic"}
    assert all(sample.count for sample in tally.samples)
