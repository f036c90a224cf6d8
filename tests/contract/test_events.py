"""Storing a batch, over the fake and over Postgres: the first committed row of an id is its verdict for ever."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from processor.failures import Unstorable
from processor.ports import KnownIds, Recorded, StaleRoots, StaleRules, Stored
from processor.pure.types import Facts, Root, Ruling
from tests.contract.decision_world import LONG_AGO, ORG, At, FakeWorld, World, real_world, scratch
from tests.contract.filter_world import velocity

__all__ = ["scratch"]
pytestmark = pytest.mark.contract
YEAR_1, YEAR_2255, YEAR_9999 = -62_135_596_800_000, 9_000_000_000_000, 253_402_300_799_999


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Nothing is stored yet."""
    if request.param == "fake":
        yield FakeWorld(lateness_ms=0)
        return
    servers = (request.getfixturevalue("scratch"), request.getfixturevalue("redis_url"))
    async with real_world(*servers, lateness_ms=0) as world:
        yield world


async def known(world: World, *rulings: Ruling) -> dict[int, Stored]:
    """What is said of rulings that are recorded."""
    answer = await world.record(rulings)
    assert isinstance(answer, Recorded)
    return dict(answer.known)


def saying(ruling: Ruling, reason: Any, **by: Any) -> Ruling:
    """The ruling with another verdict."""
    return replace(ruling, reason=reason, suppressed_by=by or None)


async def test_the_first_row_wins(world: World) -> None:
    """A redelivered message gets its row, whatever is said now."""
    (ruling,) = await world.decide(world.event("e"))
    first = saying(ruling, "inorganic", filter_id="f", count=4)
    answer = await world.record([first])
    assert isinstance(answer, Recorded)
    assert not answer.known
    again = await known(world, ruling)
    assert again == {
        0: Stored(answer.received_at, "inorganic", {"filter_id": "f", "count": 4}, True, False)
    }
    assert await world.stored() == {(ORG, "e"): "inorganic"}


@pytest.mark.parametrize(
    "elsewhere",
    [
        At(2),
        At(1, partition=1),
        At(1, topic="other"),
        At(1, timestamp=1_001),
        At(1, timestamp=None),
    ],
)
async def test_a_message_from_elsewhere_with_a_known_id_is_a_duplicate(
    world: World, elsewhere: At
) -> None:
    """Place and record timestamp make a message; its body is the same here."""
    await world.commit(world.event("e", record=At(1)))
    (stored,) = (
        await known(world, *await world.decide(world.event("e", record=elsewhere)))
    ).values()
    assert not stored.same_message


@pytest.mark.parametrize("timestamp", [None, -1, 0, 1])
async def test_a_redelivery_is_known_by_its_place_and_timestamp(
    world: World, timestamp: int | None
) -> None:
    """A record without a timestamp has none each time; a negative one is none."""
    (ruling,) = await world.commit(world.event("e", record=At(1, timestamp=timestamp)))
    (stored,) = (await known(world, ruling)).values()
    assert stored.same_message


async def test_other_metadata_is_no_other_body(world: World) -> None:
    """Lead, type and time are what windows know."""
    await world.commit(world.event("e", metadata={"a": 1}))
    (ruling,) = await world.decide(world.event("e", metadata={"a": 2}))
    assert list(await known(world, ruling)) == [0]


@pytest.mark.parametrize(
    "other", [{"lead_id": "B"}, {"event_type": "Form Submit"}, {"at": LONG_AGO + 1}]
)
async def test_a_known_id_with_another_body_is_refused(world: World, other: dict[str, Any]) -> None:
    """It is reported, and nothing of its batch stays."""
    await world.commit(world.event("e"))
    rulings = await world.decide(world.event("new"), world.event("e", **other))
    answer = await world.record(rulings)
    assert answer == KnownIds(others=frozenset({(ORG, "e")}), facts={})
    assert set(await world.stored()) == {(ORG, "e")}


@pytest.mark.parametrize(
    "facts",
    [
        Facts(counted=False, rules=1, exceeded={}),
        Facts(counted=True, rules=1, exceeded={3: 'a "burst" ☂ \\ id'}),
        Facts(counted=True, rules=1, exceeded={3: "x", 4: "y"}),
    ],
)
async def test_a_known_id_that_did_other_things_to_windows_is_refused(
    world: World, facts: Facts
) -> None:
    """Its stored facts are reported, and nothing of its batch stays."""
    (ruling,) = await world.decide(world.event("e"))
    assert isinstance(await world.record([replace(ruling, facts=facts)]), Recorded)
    answer = await world.record([*await world.decide(world.event("new")), ruling])
    assert answer == KnownIds(others=frozenset(), facts={(ORG, "e"): facts})
    assert set(await world.stored()) == {(ORG, "e")}
    settled = replace(ruling, facts=facts)
    assert list(await known(world, *await world.decide(world.event("new")), settled)) == [1]


async def test_both_kinds_of_doubt_are_reported_at_once(world: World) -> None:
    """One more decision is enough."""
    first, second = await world.decide(world.event("a"), world.event("b"))
    stored = Facts(counted=False, rules=1, exceeded={})
    await world.record([first, replace(second, facts=stored)])
    (other,) = await world.decide(world.event("a", lead_id="B"))
    answer = await world.record([other, second])
    assert answer == KnownIds(frozenset({(ORG, "a")}), {(ORG, "b"): stored})


async def test_facts_of_older_rules_agree_where_they_did_the_same(world: World) -> None:
    """The rules an event was judged by are no reason to judge its batch again."""
    (ruling,) = await world.commit(world.event("e"))
    await world.filters(velocity(event_type="other"))
    (again,) = await world.decide(ruling.case.event)
    assert again.facts.rules > ruling.facts.rules
    assert list(await known(world, again)) == [0]


async def test_rulings_by_older_rules_are_refused(world: World) -> None:
    """A filter change is in force from its commit on."""
    rules = world.rulebook.rules.revision
    rulings = await world.decide(world.event("e"))
    await world.filters(velocity())
    assert await world.events.record(rulings, rules) == StaleRules()
    assert await world.stored() == {}


async def test_rulings_on_leads_merged_meanwhile_are_refused(world: World) -> None:
    """Every lead that is another or in another epoch is reported, and nothing of the batch stays."""
    events = [world.event(name, lead_id=name) for name in ("A", "B", "C")]
    rulings = await world.decide(*events)
    await world.merge("B", "A")
    epoch = (await world.root(ORG, "B")).epoch
    assert epoch > 0
    expected = {(ORG, "A"): Root("B", epoch), (ORG, "B"): Root("B", epoch)}
    assert await world.record(rulings) == StaleRoots(expected)
    assert await world.stored() == {}
    assert not await known(world, *await world.decide(*events))


async def test_an_event_keeps_its_body_when_its_lead_is_merged(world: World) -> None:
    """The lead it named is compared, not the one it belongs to."""
    (ruling,) = await world.commit(world.event("e", lead_id="A"))
    await world.merge("B", "A")
    (stored,) = (await known(world, *await world.decide(ruling.case.event))).values()
    assert stored.same_message
    answer = await world.record(await world.decide(world.event("e", lead_id="B")))
    assert answer == KnownIds(frozenset({(ORG, "e")}), {})


async def test_a_deleted_event_is_still_known(world: World) -> None:
    """It stays deleted when its message is replayed."""
    (ruling,) = await world.commit(world.event("e"))
    await world.delete("e")
    (stored,) = (await known(world, ruling)).values()
    assert (stored.deleted, stored.same_message) == (True, True)


async def test_the_same_id_in_another_org_unit_is_another_event(world: World) -> None:
    """Ids are the producer's."""
    await world.commit(world.event("e"))
    (ruling,) = await world.decide(world.event("e", lead_id="B", org_unit="other"))
    assert not await known(world, ruling)
    assert set(await world.stored()) == {(ORG, "e"), ("other", "e")}


@pytest.mark.parametrize("at", [YEAR_1, -1, 0, 1, 999, YEAR_2255, YEAR_2255 + 1, YEAR_9999])
async def test_every_time_is_stored_to_the_millisecond(world: World, at: int) -> None:
    """Else a redelivery would have another body; one millisecond more is another."""
    (ruling,) = await world.commit(world.event("e", at))
    assert list(await known(world, ruling)) == [0]
    near = at + 1 if at < YEAR_9999 else at - 1
    answer = await world.record(await world.decide(world.event("e", near)))
    assert isinstance(answer, KnownIds)


@pytest.mark.parametrize("odd", ["\x1f", "a\n\x1e,{}", '"\\', " "])
async def test_ids_and_leads_may_hold_any_character(world: World, odd: str) -> None:
    """That which separates them on their way to Postgres too, and each keeps its own."""
    events = [world.event(event_id, lead_id=f"L{event_id}") for event_id in (odd, "e", odd * 2)]
    assert not await known(world, *await world.decide(*events))
    assert set(await world.stored()) == {(ORG, odd), (ORG, "e"), (ORG, odd * 2)}
    again = await known(world, *await world.decide(*events))
    assert [again[n].same_message for n in range(3)] == [True] * 3


async def test_only_new_rows_of_a_batch_get_its_commit_time(world: World) -> None:
    """The others keep theirs."""
    old, later = world.event("a"), world.event("b")
    first = await world.record(await world.decide(old))
    second = await world.record(await world.decide(old, later))
    assert isinstance(first, Recorded)
    assert isinstance(second, Recorded)
    assert {n: stored.received_at for n, stored in second.known.items()} == {0: first.received_at}
    assert second.received_at >= first.received_at


async def test_what_postgres_cannot_hold_is_told(scratch: str, redis_url: str) -> None:
    """Parse refuses NUL long before; this is the net below it."""
    async with real_world(scratch, redis_url, 0) as world:
        rulings = await world.decide(world.event("e", metadata={"a": "\0"}))
        with pytest.raises(Unstorable):
            await world.record(rulings)
        assert await world.stored() == {}
