"""Unmerges on a real Postgres: what was merged comes apart exactly, wherever its rows stand."""

from processor.io import merges
from processor.io.postgres import QUERIES
from tests.contract.merge_world import ORG, People, people

__all__ = ["people"]


async def test_an_unmerge_gives_back_all_events_of_the_source(people: People) -> None:
    """M7: those that arrived since too, moved or not; those of the target stay."""
    await people.ingest(("y", "Y"), ("a", "A"), ("t", "T"))
    await people.merge("A", "Y")
    await people.merge("T", "A")
    await people.drain()
    await people.ingest(("a2", "A"), ("y2", "Y"), ("t2", "T"))
    done = await people.unmerge("T", "A", "X", "T")
    assert done.event is not None
    assert (done.event.event_type, done.event.lead_id) == ("Lead Unmerged", "T")
    assert (done.named, done.events_moved) == (("A",), 5)  # and the merge of Y into A
    assert await people.view("A") >= {"a", "a2", "y", "y2"}
    assert not await people.view("T") & {"a", "a2", "y", "y2"}
    await people.drain(limit=2)
    leads = {"y": ("A", "Y"), "y2": ("A", "Y"), "a": ("A", None), "a2": ("A", None)}
    assert await people.rows() == leads | {"t": ("T", None), "t2": ("T", None)}
    assert await people.bad() == []


async def test_an_unmerge_before_the_moves_of_its_merge(people: People) -> None:
    """M7: rows that never left are passed over, rows on their way go to the root of now."""
    await people.ingest(*((f"{lead}{n}", lead) for lead in "AB" for n in range(5)))
    await people.merge("B", "A")
    await merges.move_step(people.postgres, 3)
    await people.merge("C", "B")
    await people.unmerge("B", "A")
    await people.merge("D", "A")
    await people.drain(limit=2)
    assert set((await people.rows()).values()) == {("D", "A"), ("C", "B")}
    assert await people.bad() == []


async def test_the_same_merge_again_after_an_unmerge_is_a_merge(people: People) -> None:
    """Edges are kept with what took them back; only one of a lead stands at a time."""
    for _ in range(2):
        assert (await people.merge("B", "A")).named == ("A",)
        assert (await people.unmerge("B", "A")).named == ("A",)
        assert (await people.unmerge("B", "A")).event is None
    assert await people.roots(["A"]) == [("A", 5)]


async def test_a_class_is_looked_up_once_however_many_of_it_are_named(people: People) -> None:
    """An unmerge of hundreds of sources of one lead costs no more looks at its class than one of a single source."""
    names = [f"S{n}" for n in range(30)]
    await people.merge("T", *names)
    await people.merge("X", "Y")
    async with people.open() as connection:
        await connection.execute("SET LOCAL track_functions = 'all'")
        edges = await connection.fetch(QUERIES["merge_edges"], ORG, ["T", *names, "Y"])
        looks = "SELECT pg_stat_get_xact_function_calls('lead_class(text, text)'::regprocedure)"
        assert await connection.fetchval(looks) == 2
    assert {row["source_lead"] for row in edges} == {*names, "Y"}
