"""Engagement in Postgres: what is counted once, whatever is delivered; merges as updates; what is told, in order."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from processor.failures import Retryable, Stopped
from processor.io.engagement_store import Applied, Place
from processor.pure.engagement import Told
from processor.pure.enriched import Foreign, Organic, Relinked
from processor.pure.places import Delivered
from tests.contract.engagement_world import START, TOPIC_ID, Engaged, engaged
from tests.contract.merge_world import ORG, again

pytestmark = pytest.mark.contract
TYPES = ["Page View", "Email Open", "Form Submit", "Call"]


@pytest.fixture
async def kept(database: str) -> AsyncIterator[Engaged]:
    """A store that has seen nothing."""
    async with engaged(database) as world:
        yield world


def event(number: int, lead: str = "a", at: int = 0, event_type: str = "Page View") -> Organic:
    """At a time after `START`."""
    return Organic(ORG, f"e{number}", lead, event_type, START + at)


def random_events(rng: random.Random, number: int, leads: Sequence[str]) -> list[Organic]:
    """Visits in bursts, in no order."""
    visits = [rng.randrange(0, 10**9) for _ in range(number // 6 + 1)]
    return [
        event(n, rng.choice(leads), rng.choice(visits) + rng.randrange(100_000), rng.choice(TYPES))
        for n in range(number)
    ]


async def test_a_batch_that_comes_again_counts_nothing_twice(kept: Engaged) -> None:
    """Neither whole, nor its end with what comes after it, nor by another process."""
    first = kept.records(0, event(1), event(2, at=1), event(3, "b"))
    second = kept.records(0, event(4), event(5, "b", 2))
    assert (await kept.store.apply(first)).counted == 3
    before = await kept.state()
    assert (await kept.store.apply(first)).counted == 0
    assert await kept.state() == before
    assert (await kept.store.apply([*first[1:], *second])).counted == 2
    assert (await kept.store.places())[0] == second[-1].offset + 1
    await kept.assert_recounted()


async def test_an_id_counts_once_wherever_it_is_published_again(kept: Engaged) -> None:
    """A worker of `at_least_once` may publish it at two offsets, in one batch or not; another org unit's is another event."""
    await kept.apply(0, event(1), event(1), event(2, at=5))
    await kept.apply(1, event(1))
    await kept.assert_recounted()
    theirs = Organic("other", "e1", "a", "Page View", START)
    assert (await kept.store.apply(kept.records(2, theirs))).counted == 1
    listed = await kept.pool.fetch("SELECT org_unit, leads FROM engaged_org_units ORDER BY 1")
    assert [tuple(row) for row in listed] == [(ORG, 1), ("other", 1)]


async def test_no_record_is_left_out_whatever_is_delivered(kept: Engaged) -> None:
    """A gap is seen, and nothing behind it is counted; other partitions go on."""
    one, two, three = (kept.records(0, event(n, at=n)) for n in (1, 2, 3))
    others = kept.records(1, event(4, "b"))
    await kept.store.apply(one)
    torn = await kept.store.apply([*three, *others])
    assert torn == Applied(
        {0: two[0].offset - 1, 1: others[0].offset + 1}, frozenset({0}), 1, 1, [], 2
    )
    unknown = Delivered(0, two[0].offset, 2**63 - 1, event(2, at=2))
    assert (await kept.store.apply([unknown])).torn == {0}
    assert (await kept.store.apply([*two, *three])).counted == 2
    await kept.assert_recounted()


async def test_a_place_is_of_a_topic_that_it_names(kept: Engaged) -> None:
    """A partition that was never counted begins where its topic does; without a place nothing is counted."""
    batch = kept.records(0, event(1))
    await kept.store.apply(batch)
    found = await kept.store.opened(b"second", {0: 7, 20: 7})
    assert found == {0: Place(batch[0].offset + 1, TOPIC_ID), 20: Place(7, b"second")}
    await kept.pool.execute("DELETE FROM engagement_places WHERE partition = 0")
    with pytest.raises(Stopped, match="start again"):
        await kept.store.apply(batch)


async def test_a_foreign_record_is_passed_over_and_told_of(kept: Engaged) -> None:
    """Once; what stands around it counts."""
    batch = kept.records(0, event(1), Foreign("no enriched event"), None, event(2))
    applied = await kept.store.apply(batch)
    assert applied.counted == 2
    assert applied.foreign == [(batch[1], "no enriched event")]
    assert (await kept.store.apply(batch)).foreign == []
    await kept.assert_recounted()


async def test_a_batch_is_kept_whole_or_not_at_all(kept: Engaged) -> None:
    """What it made of the leads, how far it came, and what it has to tell."""
    batch = kept.records(0, event(1), event(2))
    await kept.pool.execute("ALTER TABLE engagement_outbox ADD CHECK (value = '')")
    with pytest.raises(Exception, match="violates check constraint"):
        await kept.store.apply(batch)
    assert {table: len(found) for table, found in (await kept.state()).items() if found} == {}
    assert set((await kept.store.places()).values()) == {0}


@pytest.mark.parametrize("seed", range(3))
async def test_two_processes_and_merges_between_them_end_as_a_recount(
    kept: Engaged, seed: int
) -> None:
    """Events of a lead on any partition, before and after the merge and its message."""
    rng = random.Random(seed)
    leads = [f"l{n}" for n in range(8)]
    found = random_events(rng, 160, leads)
    batches = [kept.records(p % 4, *found[p * 8 : (p + 1) * 8]) for p in range(20)]

    async def reader(partitions: set[int]) -> None:
        for batch in batches:
            if batch[0].partition in partitions:
                await again(lambda batch=batch: kept.store.apply(batch))  # type: ignore[misc]

    async def merger() -> None:
        for _ in range(6):
            target, source = rng.sample(leads, 2)
            await kept.people.merge(target, source)
            await again(lambda: kept.relinked(target, source))  # noqa: B023
        await kept.people.unmerge(target, source)
        await again(lambda: kept.relinked(target, source))

    async with asyncio.TaskGroup() as tasks:
        for job in (reader({0, 1}), reader({2, 3}), merger()):
            tasks.create_task(job)
    await kept.assert_recounted(surges=False)
    state = await kept.state()
    for batch in batches:
        await kept.store.apply(batch)
    assert await kept.state() == state


async def test_late_events_make_surges_and_sessions_as_if_they_had_come_in_time(
    kept: Engaged,
) -> None:
    """Whatever the order, of a lead that is merged from the beginning too."""
    await kept.people.merge("a", "b", "c")
    rng = random.Random(5)
    found = random_events(rng, 200, ["a", "b", "c", "d"])
    rng.shuffle(found)
    for n in range(0, len(found), 7):
        await kept.apply(n % 3, *found[n : n + 7])
    await kept.assert_recounted()


async def test_a_merged_lead_is_its_survivor_at_once_and_itself_again_after_an_unmerge(
    kept: Engaged,
) -> None:
    """Before the merge's message the lead itself is right already; with it the list is."""
    await kept.apply(0, event(1, "a"), event(2, "b", 1_000), event(3, "b", 10**8))
    before = await kept.state()
    await kept.people.merge("c", "a", "b")
    await kept.apply(1, event(4, "a", 2_000))
    await kept.relinked("c", "a", "b")
    await kept.assert_recounted()
    assert [lead for _, lead, events, *_ in (await kept.state())["lead_scores"] if events] == ["c"]
    await kept.people.unmerge("c", "a", "b")
    await kept.relinked("c", "a", "b")
    await kept.assert_recounted(surges=False)  # what was told of all of them stays told
    after = await kept.state()
    assert after["engaged_leads"][1] == before["engaged_leads"][1]
    said = await kept.publish()
    created = [one["lead_id"] for one in said if one["type"] == "lead_created"]
    assert created == ["a", "b", "c"]
    last = {one["lead_id"]: one["score"] for one in said if one["type"] == "score_update"}
    assert last["c"] == 0
    assert last["a"] == pytest.approx(2, abs=1e-5)


async def test_an_unmerge_parts_a_lead_that_nobody_names(kept: Engaged) -> None:
    """Another one was named when it was merged."""
    await kept.apply(0, *(event(n, lead) for n, lead in enumerate("xyrt")))
    for target, source in (("y", "x"), ("r", "y"), ("t", "x")):
        await kept.people.merge(target, source)
        await kept.relinked(target, source)
    await kept.people.unmerge("t", "x", "y")
    await kept.relinked("t", "x", "y")
    assert {one.lead_id for one in await kept.listed()} == {"y", "r", "t"}
    await kept.assert_recounted(surges=False)
    told = [one["score"] for one in await kept.publish() if one["lead_id"] == "r"]
    assert told[-3:] == [pytest.approx(3), 0, pytest.approx(1)]


@pytest.mark.parametrize("seed", [0, 4])
async def test_the_list_is_a_recount_after_whatever_merges_and_unmerges(
    kept: Engaged, seed: int
) -> None:
    """Of several leads at once, by any of their names; in these runs some unmerges part leads that they do not name."""
    leads = "abcdefghij"
    await kept.apply(0, *random_events(random.Random(seed), 60, leads))
    rng = random.Random(seed)
    for _ in range(60):
        target, *sources = rng.sample(leads, rng.randint(2, 5))
        change = kept.people.merge if rng.random() < 0.65 else kept.people.unmerge
        merged = await change(target, *sources)
        if merged.named:
            await kept.relinked(merged.survivor, *merged.named)
        await kept.assert_recounted(surges=False)


async def test_a_lead_is_listed_as_it_was_counted_until_its_unmerge_is_read_of(
    kept: Engaged,
) -> None:
    """All of it, though nothing of its class may be left; what comes for the parted lead meanwhile is counted beside it."""
    await kept.people.merge("c", "a", "b")
    await kept.apply(0, event(1, "a"), event(2, "b", 1_000), event(3, "b", 10**8))
    before = await kept.listed()
    assert [(one.lead_id, one.sessions) for one in before] == [("c", 2)]
    await kept.people.unmerge("c", "a", "b")
    assert await kept.listed() == before
    await kept.apply(0, event(4, "a", 10**9))
    assert [one for one in await kept.listed() if one.lead_id == "c"] == before
    await kept.relinked("c", "a", "b")
    assert {one.lead_id for one in await kept.listed()} == {"a", "b"}
    await kept.assert_recounted(surges=False)


@pytest.mark.parametrize("change", ["merge", "unmerge"])
async def test_leads_are_looked_at_for_what_merged_or_unmerged_them_alone(
    kept: Engaged, change: str
) -> None:
    """Not for what only says so: any producer may name its events like that, and any leads in them."""
    await kept.apply(0, event(1, "a"), event(2, "b", 1_000))
    if change == "unmerge":
        await kept.people.merge("c", "a", "b")
        await kept.relinked("c", "a", "b")
    before = await kept.state()
    await getattr(kept.people, change)("c", "a", "b")
    await kept.apply(9, Relinked(ORG, "of a producer", ["c", "a", "b"], START))
    await kept.apply(9, Relinked("other", kept.people.message, ["c", "a", "b"], START))
    assert await kept.state() == before
    await kept.relinked("c", "a", "b")
    assert await kept.state() != before
    await kept.assert_recounted(surges=False)


async def test_what_is_told_is_forgotten_once_it_is_sent(kept: Engaged) -> None:
    """In the order in which it was found; again after a failure."""
    await kept.apply(0, event(1), event(2, "b"))
    await kept.apply(1, event(3, at=1))

    async def fails(_: Sequence[Told]) -> None:
        raise Retryable("kafka", "is away")

    with pytest.raises(Retryable):
        await kept.store.publish(fails)
    said = [(one["type"], one["lead_id"]) for one in await kept.publish()]
    assert said == [
        ("lead_created", "a"), ("score_update", "a"), ("lead_created", "b"), ("score_update", "b"), ("score_update", "a"),
    ]  # fmt: skip
    assert await kept.publish() == []
