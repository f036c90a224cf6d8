"""The fold of engagement against a recount: whatever the order, the batches, the repeats and the merges."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.pure.enriched import Organic, Relinked
from processor.pure.score import TOLERANCE, added, score_at, worth
from processor.pure.timestamps import from_text
from schemas import EngagementEvent
from tests.oracle_engagement import WEEK, recount, sessions, untold
from tests.unit.engagement_memory import ORG, RULE, RULES, Memory

START = 1_767_225_600_000
MINUTE = 60_000
TYPES = ["Page View", "Email Open", "Form Submit", "Call"]
LEADS = ["a", "b", "c", "d"]
SURGE = RULE.types, RULE.threshold, RULE.window_ms

times = st.one_of(
    st.integers(0, 40).map(lambda n: START + n * 15 * MINUTE),
    st.integers(0, 60).map(lambda n: START + n * 7_000),
    st.integers(-(10**13), 10**13),
)
events = st.lists(
    st.tuples(st.sampled_from(LEADS), st.sampled_from(TYPES), times), max_size=40
).map(lambda some: [Organic(ORG, f"e{n}", *one) for n, one in enumerate(some)])


def batches(found: Sequence[Organic], seed: int) -> list[list[Organic]]:
    """All of them in some order, some twice, in batches of any size."""
    rng = random.Random(seed)
    some = [*found, *rng.sample(list(found), len(found) // 3)]
    rng.shuffle(some)
    split = []
    while some:
        number = rng.randint(1, 8)
        split.append(some[:number])
        some = some[number:]
    return split


def assert_recounted(memory: Memory) -> None:
    """What is kept is what a recount finds."""
    rows = [
        {"id": e.id, "lead": e.lead_id, "type": e.event_type, "at": e.at, "reason": None}
        for e in memory.events.values()
    ]
    wanted = recount(rows, memory.roots, RULES.weights, SURGE)
    standing = {lead for (_, lead), ranked in memory.ranked.items() if ranked.events}
    assert standing == set(wanted)
    for root, own in wanted.items():
        leads = [
            memory.leads[ORG, one] for one in memory.class_of(root) if (ORG, one) in memory.leads
        ]
        assert sum(lead.events for lead in leads) == own.events == memory.ranked[ORG, root].events
        assert min(lead.first for lead in leads) == own.first
        assert max(lead.last for lead in leads) == own.last
        assert memory.sessions_of(root) == own.sessions
        assert sum(lead.sessions for lead in leads) == sum(
            len(memory.sessions.get((ORG, one), {})) for one in memory.class_of(root)
        )
        now = score_at(memory.ranked[ORG, root].score, own.last)
        assert now == pytest.approx(own.score(own.last), rel=TOLERANCE, abs=1e-6)


@given(events, st.integers(0, 10**6))
def test_whatever_the_order_leads_are_what_a_recount_finds(found: list[Organic], seed: int) -> None:
    """Late, repeated, in one batch or in many; surges are told where there are some, and nowhere else."""
    memory = Memory()
    for batch in batches(found, seed):
        memory.apply(batch)
        assert_recounted(memory)
    rows = [
        {"id": e.id, "lead": e.lead_id, "type": e.event_type, "at": e.at, "reason": None}
        for e in found
    ]
    for root, own in recount(rows, {}, RULES.weights, SURGE).items():
        told = memory.surges_of(root)
        assert set(told) <= own.surging
        assert untold(own.surging, told, RULE.window_ms) == []
        assert all(abs(a - b) >= RULE.window_ms for a in told for b in told if a != b)


@given(events, st.integers(0, 10**6), st.data())
def test_merges_and_unmerges_are_sums_of_other_leads(
    found: list[Organic], seed: int, data: st.DataObject
) -> None:
    """A redirect is seen before its message or after it, between any two batches."""
    memory = Memory()
    for batch in batches(found, seed):
        memory.apply(batch)
        lead = data.draw(st.sampled_from(LEADS))
        target = data.draw(st.sampled_from(LEADS))
        root = memory.roots.get(target, target)
        if lead in memory.roots and data.draw(st.booleans()):
            left = memory.roots.pop(lead)
            memory.apply([], [Relinked(ORG, "m", [left, lead], START)])
        elif lead not in memory.roots and root != lead:
            memory.roots |= dict.fromkeys(memory.class_of(lead), root)
            memory.apply([], [Relinked(ORG, "m", [root, lead], START)])
        assert_recounted(memory)
    created = [told["lead_id"] for told in memory.told if told["type"] == "lead_created"]
    assert len(created) == len(set(created))
    assert {lead for (_, lead), ranked in memory.ranked.items() if ranked.events} <= set(created)


def test_what_is_told_is_the_score_at_its_time() -> None:
    """A lead is created at its first event, its score told at its last, a surge at the event that makes it."""
    memory = Memory()
    views = [Organic(ORG, f"v{n}", "a", "Page View", START + n * 10_000) for n in range(3)]
    memory.apply(views[:1])
    memory.apply(views[1:])
    said = [(one["type"], one["score"], from_text(str(one["at"]))) for one in memory.told]
    assert [one[0] for one in said] == ["lead_created", "score_update", "score_update", "surge"]
    assert [one[2] for one in said] == [START, START, START + 20_000, START + 20_000]
    assert said[1][1] == 1.0
    assert said[2][1] == said[3][1] == pytest.approx(2.999966, abs=1e-6)
    assert all((one["org_unit"], one["lead_id"]) == (ORG, "a") for one in memory.told)
    for one in memory.told:
        assert EngagementEvent.model_validate(one).model_dump(mode="json") == one


def test_a_lead_that_is_merged_away_is_told_to_be_worth_nothing() -> None:
    """And what it was worth to be its survivor's; a type without a weight makes a lead and tells no score."""
    memory = Memory()
    memory.apply(
        [Organic(ORG, "1", "a", "Form Submit", START), Organic(ORG, "2", "b", "Call", START)]
    )
    before = len(memory.told)
    assert [one["type"] for one in memory.told if one["lead_id"] == "b"] == ["lead_created"]
    memory.roots["a"] = "b"
    memory.apply([], [Relinked(ORG, "m", ["b", "a"], START + 5)])
    said = {(one["lead_id"], one["type"]): one["score"] for one in memory.told[before:]}
    assert said == {("a", "score_update"): 0, ("b", "score_update"): 10.0}
    memory.apply([], [Relinked(ORG, "m", ["b", "a"], START + 5)])
    assert len(memory.told) == before + 2


def test_scores_halve_in_a_week_and_never_overflow() -> None:
    """From the year 1 to the year 9999, seen from any time."""
    earliest, latest = -62_135_596_800_000, 253_402_300_799_999
    assert score_at(worth(8, START), START) == 8
    assert score_at(worth(8, START), START + WEEK) == 4
    assert score_at(worth(8, START), START + WEEK // 2) == pytest.approx(8 / 2**0.5)
    assert score_at(worth(8, earliest), latest) == 0
    assert score_at(worth(8, latest), earliest) > 1e300
    both = added([worth(8, earliest), worth(1, latest)])
    assert score_at(both, latest) == 1
    assert worth(8, START).rank > worth(7, START).rank > worth(0, START).rank


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_sessions_are_runs_without_a_gap(found: list[int]) -> None:
    """Half an hour is no gap, a millisecond more is one."""
    memory = Memory()
    for n, at in enumerate(found):
        memory.apply([Organic(ORG, str(n), "a", "Call", at)])
    assert memory.sessions_of("a") == sessions(sorted(found))
    assert len(sessions([0, 1_800_000])) == 1
    assert len(sessions([0, 1_800_001])) == 2
