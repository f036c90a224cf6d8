"""The rules a worker holds: a snapshot of what is enabled, and never older than the revision it claims."""

import asyncio
from collections.abc import Sequence

from processor.io.rulebook import Rulebook, renewed
from processor.pure.types import OrgRules, Rules
from tests.contract.filter_world import Book, book, metadata, velocity

__all__ = ["book"]


def watching(rules: OrgRules, event_type: str) -> Sequence[str]:
    """The velocity filters of a type."""
    return [one.id for one in rules.velocity.get(event_type, ())]


def matching(rules: OrgRules, event_type: str) -> Sequence[str]:
    """The attribute filters of a type, as triage asks for them."""
    found = rules.attributes.get(event_type)
    return [one.id for one in (rules.attributes.get("", ()) if found is None else found)]


async def test_rules_hold_what_is_enabled_by_type_and_id(book: Book) -> None:
    """Attribute filters for every type stand in every list; ids ascend by bytes."""
    await book.apply(
        acme=[
            velocity("v-b"),
            velocity("v-"),
            velocity("v-a", event_type="other"),
            velocity("off", enabled=False),
            metadata("m-c"),
            metadata("m-b", event_type="other"),
            metadata("m-", event_type="other"),
            metadata("m-off", enabled=False),
        ]
    )
    rules = await book.rules()
    assert (rules.revision, rules.order) == (await book.revision(), "velocity,metadata")
    org = rules.org_units["acme"]
    assert [watching(org, one) for one in ("Page View", "Other", "New")] == [
        ["v-", "v-b"],
        ["v-a"],
        [],
    ]
    assert [matching(org, one) for one in ("Other", "New")] == [["m-", "m-b", "m-c"], ["m-c"]]


async def test_rules_carry_what_a_verdict_and_a_window_need(book: Book) -> None:
    """The version to record, the revision and newest time that windows depend on, the test."""
    await book.connection.execute("INSERT INTO lanes VALUES ('events.raw', 0, 42)")
    await book.apply(acme=[velocity(keep_first=True), metadata("mf", 1)])
    await book.apply(acme=[velocity(keep_first=True, name="New"), metadata("mf", 1)])
    org = (await book.rules()).org_units["acme"]
    (one,) = org.velocity["Page View"]
    assert (one.id, one.name, one.version, one.keep_first) == ("vf", "New", 2, True)
    revision = await book.column("window_revision")
    assert (one.threshold, one.window_ms, one.revision, one.newest) == (3, 1000, revision, 42)
    (other,) = org.attributes[""]
    assert (other.id, other.name, other.version, other.event_type) == ("mf", "Bots", 1, "")
    assert (other.matches({"k": 1.0}), other.matches({"k": 2})) == (True, False)


async def test_a_reload_replaces_only_org_units_that_changed(book: Book) -> None:
    """And compiles no version twice."""
    await book.apply(acme=[velocity(), metadata()], other=[velocity()], gone=[velocity()])
    rulebook = await Rulebook.load(book.postgres, "metadata,velocity")
    before = rulebook.rules
    await rulebook.reload()
    assert rulebook.rules == before
    await book.apply(acme=[velocity(threshold=4), metadata()], gone=[])
    await rulebook.reload()
    now = rulebook.rules
    assert (now.revision, now.order, set(now.org_units)) == (
        await book.revision(),
        "metadata,velocity",
        {"acme", "other"},
    )
    assert now.org_units["other"] is before.org_units["other"]
    assert now.org_units["acme"].velocity["Page View"][0].threshold == 4
    matchers = [rules.org_units["acme"].attributes[""][0] for rules in (before, now)]
    assert matchers[0] is matchers[1]


async def test_others_have_their_turn_between_the_filters_that_are_compiled(book: Book) -> None:
    """The patterns of an org unit take minutes at worst, and a worker that is silent for 10 s loses its partitions."""
    await book.apply(acme=[metadata(f"m{n}") for n in range(30)])
    rows = await book.postgres.fetch("rules_since", 0)
    turns = 0

    async def counts() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(counts())
        rules = await renewed(Rules(0, "velocity,metadata", {}), rows)
        counting.cancel()
    assert len(rules.org_units["acme"].attributes[""]) == 30
    assert turns >= 30


async def test_a_database_without_filters_has_its_revision(book: Book) -> None:
    """Nothing watches anything."""
    assert await book.rules() == Rules(revision=1, order="velocity,metadata", org_units={})


async def test_a_revision_never_claims_more_than_its_rules(book: Book) -> None:
    """However changes and reloads meet, and however many lanes reload at once."""
    rulebook = await Rulebook.load(book.postgres, "velocity,metadata")
    last = 30

    async def change() -> None:
        for threshold in range(2, last + 1):
            await book.apply(acme=[velocity(threshold=threshold)])

    async def reload() -> None:
        revision = 0
        while revision < last:
            await rulebook.reload()
            rules = rulebook.rules
            assert rules.revision >= revision
            revision = rules.revision
            org = rules.org_units.get("acme")
            assert revision == (org.velocity["Page View"][0].threshold if org else 1)

    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        group.create_task(reload())
        group.create_task(reload())


async def test_a_database_that_was_restored_is_believed_from_scratch(book: Book) -> None:
    """What is in hand may be of changes that never were."""
    await book.apply(acme=[velocity("a")])
    before = await book.revision()
    rulebook = await Rulebook.load(book.postgres, "velocity,metadata")
    await book.apply(other=[velocity("b")])
    await rulebook.reload()
    assert set(rulebook.rules.org_units) == {"acme", "other"}
    await book.connection.execute("DELETE FROM filters WHERE org_unit = 'other'")
    await book.connection.execute("UPDATE rule_state SET revision = $1", before)
    await rulebook.reload()
    assert (set(rulebook.rules.org_units), rulebook.rules.revision) == ({"acme"}, before)
