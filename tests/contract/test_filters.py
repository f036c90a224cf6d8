"""Filters on a real Postgres: a change is one transaction, and says exactly what it changed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

import schemas
from processor.io import filters
from tests import harness
from tests.contract.filter_world import Book, book, file, metadata, velocity

__all__ = ["book"]


async def test_applying_twice_changes_nothing_the_second_time(book: Book) -> None:
    """Versions stay, and workers need not reload."""
    wanted = {"acme": [velocity("b"), velocity("a"), metadata()], "other": [velocity()]}
    assert await book.apply(**wanted) == (4, 0, 0, 0)
    revision = await book.revision()
    assert await book.apply(**wanted) == (0, 0, 0, 4)
    assert await book.revision() == revision
    assert await book.column("version", "a") == 1


async def test_a_file_is_declarative_for_each_org_unit_it_names(book: Book) -> None:
    """Absent filters are deleted there, and nowhere else."""
    await book.apply(acme=[velocity("a"), velocity("b"), metadata()], other=[velocity()])
    assert await book.apply(acme=[velocity("a", threshold=4), velocity("c")]) == (1, 1, 2, 0)
    kept = await filters.export(book.postgres, None)
    assert {
        unit: [one["id"] for one in found["velocity_filters"]]
        for unit, found in kept["org_units"].items()
    } == {"acme": ["a", "c"], "other": ["vf"]}
    assert await book.apply(acme=[]) == (0, 0, 2, 0)
    assert list((await filters.export(book.postgres, None))["org_units"]) == ["other"]


async def test_all_changes_of_a_file_have_one_revision(book: Book) -> None:
    """A worker sees all of them or none; rows that did not change keep theirs."""
    await book.apply(acme=[velocity("a"), velocity("b")], other=[velocity()])
    before = await book.revision()
    await book.apply(acme=[velocity("a"), velocity("b", name="New")], other=[])
    now = await book.revision()
    revisions = [await book.column("revision", one) for one in ("a", "b")]
    assert (revisions, await book.column("revision", org_unit="other")) == ([before, now], now)


async def test_windows_of_different_filters_never_have_the_same_revision(book: Book) -> None:
    """Rows and windows know a filter by it, also where one file made several."""
    await book.apply(acme=[velocity("a"), velocity("b"), metadata()], other=[velocity("a")])
    await book.apply(acme=[velocity("a", threshold=9), velocity("c")], other=[velocity("a")])
    rows = await book.connection.fetch(
        "SELECT window_revision FROM filters WHERE kind = 'velocity'"
    )
    revisions = [row["window_revision"] for row in rows]
    assert len(set(revisions)) == len(revisions) == 4
    assert max(revisions) <= await book.revision()


async def test_a_version_counts_changes_and_goes_on_after_a_deletion(book: Book) -> None:
    """Also when the id comes back as the other kind; each version is kept with who made it."""
    steps: list[tuple[list[dict[str, Any]], int]] = [
        ([velocity()], 1),
        ([velocity(threshold=4)], 2),
        ([velocity(threshold=4)], 2),
        ([velocity(threshold=4, name="New")], 3),
        ([], 3),
        ([], 3),
        ([metadata("vf")], 4),
        ([velocity()], 5),
    ]
    for wanted, version in steps:
        await book.apply(acme=wanted)
        assert await book.column("version") == version
    assert await book.history() == [
        (1, "velocity", False, "ann"),
        (2, "velocity", False, "ann"),
        (3, "velocity", False, "ann"),
        (3, "velocity", True, "ann"),
        (4, "metadata", False, "ann"),
        (5, "velocity", False, "ann"),
    ]


async def test_an_id_that_changes_its_kind_is_one_change(book: Book) -> None:
    """It is neither a new filter nor a deleted one."""
    await book.apply(acme=[velocity()])
    assert await book.apply(acme=[metadata("vf")]) == (0, 1, 0, 0)
    assert await book.column("window_revision") is None
    assert await book.apply(acme=[velocity()]) == (0, 1, 0, 0)
    assert await book.column("window_revision") == await book.revision()


async def test_a_filter_that_is_the_same_in_other_words_is_unchanged(book: Book) -> None:
    """Event types are normalised, defaults may be left out."""
    await book.apply(acme=[velocity(), metadata(event_type="page_view")])
    same = [
        velocity(event_type="Page View", keep_first=False, enabled=True),
        metadata(event_type="PAGE-view"),
    ]
    assert await book.apply(acme=same) == (0, 0, 0, 2)


async def test_values_that_only_python_takes_for_equal_are_changes(book: Book) -> None:
    """Their texts differ, and conditions compare texts."""
    pairs = [(1, 1.0), (1, True), (1.0, "1.0"), (0.0, -0.0), ("a", "A")]
    for side in (0, 1):
        wanted = [metadata(f"mf-{n}", pair[side]) for n, pair in enumerate(pairs)]
        done = await book.apply(acme=wanted)
    assert done == (0, len(pairs), 0, 0)


async def test_every_value_comes_back_as_it_was_written(book: Book) -> None:
    """Else it would count as changed each time."""
    numbers = [-0.0, 1e19, 1e22, 1e300, 5e-324, 0.1, 1, 1.0, 2**64 - 1, -(2**63)]
    wanted = [metadata("mf", *numbers, True, False, "ŉ\u2028\x85😀\\", "\t\r\n")]
    await book.apply(acme=wanted)
    assert await book.apply(acme=wanted) == (0, 0, 0, 1)
    exported = await filters.export(book.postgres, "acme")
    expected = file(acme=wanted).model_dump(mode="json", exclude_none=True)
    assert orjson.dumps(exported) == orjson.dumps(expected)


async def test_a_type_is_stored_as_it_is_normalised_once(book: Book) -> None:
    """As that of an event is: title case may make it longer than a type is sent, or another where it is taken twice."""
    long, odd = "ß" + "a" * 127, "ŉ_dag"
    wanted = [velocity(event_type=long), metadata(event_type=odd)]
    await book.apply(acme=wanted)
    assert await book.column("event_type") == "Ss" + "a" * 127
    assert await book.column("event_type", "mf") == "ʼN Dag"
    assert await book.apply(acme=wanted) == (0, 0, 0, 2)
    exported = schemas.FilterFile.model_validate(await filters.export(book.postgres, None))
    changes = await filters.apply(book.postgres, exported, "ann")
    assert (changes.changed, changes.unchanged) == (0, 2)
    assert await book.apply(acme=[]) == (0, 0, 2, 0)


async def test_what_is_stored_is_not_checked_again(book: Book) -> None:
    """A rule that has become stricter since refuses no export, and no removal."""
    await book.apply(acme=[velocity(), metadata()])
    await book.connection.execute(
        "UPDATE filters SET name = repeat('n', 201), event_type = repeat('T', 385),"
        """ conditions = '[{"key":"k","operator":"of the past","value":"("}]'::json"""
    )
    exported = (await filters.export(book.postgres, None))["org_units"]["acme"]
    assert exported["metadata_filters"][0]["conditions"][0]["operator"] == "of the past"
    assert exported["velocity_filters"][0]["event_type"] == "T" * 385
    assert await book.apply(acme=[]) == (0, 0, 2, 0)


@dataclass(frozen=True)
class Step:
    """A filter before and after a change, and whether its windows begin afresh."""

    before: dict[str, Any]
    after: dict[str, Any]
    fresh: bool


STEPS = (
    Step({}, {"name": "New"}, fresh=False),
    Step({}, {"enabled": False}, fresh=False),
    Step({}, {"threshold": 4}, fresh=True),
    Step({}, {"window_ms": 999}, fresh=True),
    Step({}, {"keep_first": True}, fresh=True),
    Step({}, {"event_type": "other"}, fresh=True),
    Step({"enabled": False}, {}, fresh=True),
    Step({"enabled": False}, {"enabled": False, "name": "New"}, fresh=False),
    Step({"enabled": False}, {"enabled": False, "threshold": 4}, fresh=True),
)


async def test_windows_begin_afresh_only_where_they_mean_something_else(book: Book) -> None:
    """Or where they had a gap; then the newest event time tells what Redis may lack."""
    ids = [f"vf-{n}" for n in range(len(STEPS))]

    async def kept() -> list[tuple[int, int | None]]:
        columns = ("window_revision", "newest")
        return [(await book.column(columns[0], i), await book.column(columns[1], i)) for i in ids]

    await book.apply(acme=[velocity(i, **s.before) for i, s in zip(ids, STEPS, strict=True)])
    before, revision = await kept(), await book.revision()
    await book.connection.execute("INSERT INTO lanes VALUES ('events.raw', 0, 41), ('x', 1, 42)")
    await book.apply(acme=[velocity(i, **s.after) for i, s in zip(ids, STEPS, strict=True)])
    for step, old, new in zip(STEPS, before, await kept(), strict=True):
        assert old[1] is None
        assert (new[0] > revision, new[1] == 42) == (step.fresh, step.fresh), step
        assert step.fresh or new == old, step


async def test_a_filter_that_comes_back_begins_afresh(book: Book) -> None:
    """Its windows were not kept meanwhile."""
    for wanted in ([velocity()], [], [velocity()]):
        await book.apply(acme=wanted)
    assert await book.column("window_revision") == await book.revision()


async def test_a_change_waits_for_the_batches_that_are_being_recorded(book: Book) -> None:
    """And those that come later wait for it: no row is committed by rules that are gone."""
    async with book.connection.transaction():
        await book.connection.execute("SELECT pg_advisory_xact_lock_shared(7701, 0)")
        change = asyncio.create_task(book.apply(acme=[velocity()]))
        await harness.until(lambda: waiting(book))
        assert await book.revision() == 1
        assert not change.done()
    assert await change == (1, 0, 0, 0)


async def waiting(book: Book) -> bool:
    """Whether someone waits for the rules lock."""
    statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    return bool(await book.connection.fetchval(statement))


async def test_concurrent_changes_follow_each_other(book: Book) -> None:
    """Each has its revision and its version."""
    async with asyncio.TaskGroup() as group:
        for n in range(6):
            group.create_task(book.apply(acme=[velocity(threshold=n)]))
    assert await book.revision() == 7
    assert [version for version, *_ in await book.history()] == [1, 2, 3, 4, 5, 6]


async def test_a_thousand_filters_of_each_kind_are_one_call(book: Book) -> None:
    """The most an org unit may have."""
    many = [velocity(f"v{n}") for n in range(1_000)] + [metadata(f"m{n}") for n in range(1_000)]
    assert await book.apply(acme=many) == (2_000, 0, 0, 0)
    assert await book.apply(acme=many) == (0, 0, 0, 2_000)


async def test_the_conditions_of_an_org_unit_are_bounded_together(book: Book) -> None:
    """Every worker holds all of them.  Whatever makes them no more is done, also where they are too many by an older rule."""
    large = "x" * 1_000_000
    many = [metadata(f"m{n}", large) for n in range(16)]
    await book.apply(acme=many, other=many)
    with pytest.raises(filters.TooMuch, match=r"acme .* 16777216 bytes"):
        await book.apply(acme=[*many, metadata("more", large)], other=[])
    assert len(
        (await filters.export(book.postgres, "other"))["org_units"]["other"]["metadata_filters"]
    )
    assert await book.apply(acme=[*many[1:], metadata("more", large)]) == (1, 0, 1, 15)
    await book.connection.execute(
        "INSERT INTO filters (org_unit, id, kind, name, event_type, conditions, enabled, version, revision, changed_at, changed_by)"
        " SELECT org_unit, id || 'x', kind, name, event_type, conditions, enabled, 1, 1, now(), 'ann' FROM filters WHERE NOT deleted"
    )
    stored = (await filters.export(book.postgres, "acme"))["org_units"]
    fewer = stored["acme"]["metadata_filters"][1:]
    fewer[0]["name"] = "New"
    assert await book.apply(acme=fewer) == (0, 1, 1, 30)


async def test_what_conditions_take_in_a_worker_is_bounded_together(book: Book) -> None:
    """However few bytes they are as JSON; of what was written before that was weighed only these are known."""
    conditions = [{"key": "k", "operator": "in", "value": [*range(10_000, 11_000)]}] * 20
    many = [metadata(f"m{n}", conditions=conditions) for n in range(22)]
    await book.apply(acme=many[1:])
    with pytest.raises(filters.TooMuch, match=r"acme .* 67108864 bytes in memory"):
        await book.apply(acme=many)
    many[1]["name"] = "New"
    assert await book.apply(acme=many[1:]) == (0, 1, 0, 20)
    await book.connection.execute("UPDATE filters SET weight = NULL WHERE id = 'm2'")
    assert await book.apply(acme=many) == (1, 0, 0, 21)


async def test_a_filter_that_would_be_refused_today_is_read_and_deleted(book: Book) -> None:
    """What is stored was right when it was stored, and is not judged again under the lock that every worker waits for."""
    await book.apply(acme=[metadata("mf"), metadata("other")])
    await book.connection.execute(
        "UPDATE filters SET conditions = json_build_array(json_build_object('key', 'k', 'operator', 'matches', 'value', '('))"
        " WHERE id = 'mf'"
    )
    exported = await filters.export(book.postgres, "acme")
    assert exported["org_units"]["acme"]["metadata_filters"][0]["conditions"][0]["value"] == "("
    assert await book.apply(acme=[metadata("other")]) == (0, 0, 1, 1)


async def test_an_org_unit_without_filters_is_exported_by_name(book: Book) -> None:
    """Applied again, it would have none again."""
    assert await filters.export(book.postgres, "acme") == file(acme=[]).model_dump(mode="json")
    assert await filters.export(book.postgres, None) == file().model_dump()


def test_what_export_prints_apply_takes_as_unchanged(database: str, tmp_path: Path) -> None:
    """The last line of apply counts."""
    environment = {"DATABASE_URL": database}
    written = tmp_path / "filters.yaml"
    written.write_text(
        yaml.safe_dump(
            file(
                acme=[velocity(), metadata("mf", 1.0, "yes", "1e3")], other=[velocity()]
            ).model_dump(mode="json")
        )
    )
    first = harness.processor(environment, "filters", "apply", str(written))
    assert first.splitlines()[-1] == "3 added, 0 changed, 0 removed, 0 unchanged"
    for option in ([], ["--org-unit", "acme"]):
        written.write_text(harness.processor(environment, "filters", "export", *option))
        again = harness.processor(environment, "filters", "apply", str(written))
        left = 2 if option else 3
        assert again.splitlines()[-1] == f"0 added, 0 changed, 0 removed, {left} unchanged"
