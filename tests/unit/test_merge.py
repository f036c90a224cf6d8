"""What a merge or unmerge changes, case by case; every chain of them is in ``test_merge_machine``."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor.pure import merge
from processor.pure.merge import Change, Edge, Forest
from processor.pure.types import MergeCommand
from tests.unit.merge_records import NO_RECORD

leads = st.integers(0, 15).map("L{}".format)
several = st.lists(leads, max_size=8)


def forest(*merges: tuple[str, Iterable[str]]) -> Forest:
    """The forest after merges given as (target, sources), numbered from 1."""
    now = Forest()
    for merge_id, (target, sources) in enumerate(merges, 1):
        now = merge.apply(now, merge.merge(now, target, sources), merge_id)
    return now


@pytest.mark.parametrize(
    ("target", "sources"), [("A", "A"), ("A", "B"), ("B", "A"), ("C", "ABC"), ("A", "")]
)
def test_a_merge_with_itself_a_cycle_and_a_repeat_are_no_ops(target: str, sources: str) -> None:
    """Leads of one class have nothing left to merge, however they are named."""
    now = forest(("B", "A"), ("C", "B"))
    change = merge.merge(now, target, sources)
    assert change == Change("C", (), {}, {})
    assert merge.apply(now, change, 9) is now


def test_the_survivor_is_the_root_of_the_target() -> None:
    """A merge into a merged-away lead goes to the lead that took it over."""
    change = merge.merge(forest(("B", "A")), "A", "X")
    assert change == Change("B", ("X",), {"X": frozenset("X")}, {})


def test_a_source_stands_for_its_whole_class() -> None:
    """The root of a source is joined, once, and remembers every name it was called by."""
    change = merge.merge(forest(("B", "A")), "T", "ABAX")
    assert change == Change("T", ("A", "B", "X"), {"B": frozenset("AB"), "X": frozenset("X")}, {})


def test_sources_that_are_no_ops_are_left_out_of_the_names() -> None:
    """What was one with the target before is not named again."""
    assert merge.merge(forest(("T", "A")), "T", "TAX").named == ("X",)


def test_chains_end_at_one_root() -> None:
    """A into B, B into C: both are C's."""
    now = forest(("B", "A"), ("C", "B"))
    assert [merge.root(now, lead) for lead in "ABCX"] == ["C", "C", "C", "X"]
    assert merge.one_with(now, "A") == frozenset("ABC")
    assert merge.one_with(now, "X") == frozenset("X")


def test_each_touched_class_has_the_merge_as_its_epoch() -> None:
    """The survivor gets it, and a lead that leaves; a lead that is no root has none."""
    now = forest(("B", "A"), ("D", "C"), ("B", "X"))
    assert now.epochs == {"B": 3, "D": 2}
    parted = merge.apply(now, merge.unmerge(now, "B", "A"), 4)
    assert parted.epochs == {"A": 4, "B": 4, "D": 2}


def test_leads_merged_into_a_source_later_leave_with_it() -> None:
    """An edge is taken away, and what hangs below it goes along."""
    change = merge.unmerge(forest(("T", "A"), ("A", "Y"), ("X", "W")), "T", "A")
    assert change == Change(
        "T", ("A",), {}, {"A": frozenset("A")}
    )  # Y was joined to T, A's root by then
    change = merge.unmerge(forest(("A", "Y"), ("T", "A")), "T", "A")
    assert change == Change("T", ("A",), {}, {"A": frozenset("AY")})


def test_leads_merged_into_the_target_stay() -> None:
    """Only what was named leaves."""
    now = forest(("T", "A"), ("T", "B"))
    now = merge.apply(now, merge.unmerge(now, "T", "A"), 3)
    assert [merge.root(now, lead) for lead in "ABT"] == ["A", "T", "T"]


def test_an_unmerge_finds_the_target_wherever_it_went() -> None:
    """A into B, B into C: taking A from B leaves B with C, and the timeline is C's."""
    now = forest(("B", "A"), ("C", "B"))
    assert merge.unmerge(now, "B", "A") == merge.unmerge(now, "C", "A")
    assert merge.unmerge(now, "B", "A") == Change("C", ("A",), {}, {"A": frozenset("A")})


def test_the_latest_merge_that_named_a_source_is_taken_back() -> None:
    """A was merged into B and then, by its own name, with B into C: the second merge is taken back first."""
    now = forest(("B", "A"), ("C", "A"))
    change = merge.unmerge(now, "C", "A")
    assert change == Change("C", ("A",), {}, {"B": frozenset("AB")})
    now = merge.apply(now, change, 3)
    assert merge.unmerge(now, "B", "A").parted == {"A": frozenset("A")}


def test_all_edges_are_found_before_any_is_taken_away() -> None:
    """The order of the sources does not matter: a chain taken back as a whole falls into its leads."""
    now = forest(("B", "A"), ("C", "B"))
    for sources in ("AB", "BA"):
        change = merge.unmerge(now, "C", sources)
        assert change.named == tuple(sources)
        assert change.parted == {"A": frozenset("A"), "B": frozenset("B")}


@pytest.mark.parametrize(
    ("target", "source"), [("A", "A"), ("A", "B"), ("C", "X"), ("X", "A"), ("C", "C"), ("X", "X")]
)
def test_a_source_that_was_not_merged_into_the_target_is_a_no_op(target: str, source: str) -> None:
    """Itself, the wrong way round, strangers: nothing is taken back."""
    now = forest(("B", "A"), ("C", "B"), ("Y", "Z"))
    assert merge.unmerge(now, target, source) == Change(merge.root(now, target), (), {}, {})


@given(st.lists(st.tuples(leads, several), max_size=20), leads, several)
def test_an_unmerge_parts_what_a_plain_look_finds(
    merges: list[tuple[str, list[str]]], target: str, sources: list[str]
) -> None:
    """Each source by itself, by the plain definition; the class of a lead is whoever comes to it by the edges that are left."""
    now = forest(*merges)
    taken = {source: _joined_by(now, target, source) for source in sources}
    left = {lead: edge.target for lead, edge in now.edges.items() if lead not in taken.values()}
    change = merge.unmerge(now, target, sources)
    assert change.named == tuple(source for source in taken if taken[source])
    assert change.parted == {
        lead: {x for x in {*left, lead} if lead in _way(left, x)} for lead in taken.values() if lead
    }


def _way(joined: dict[str, str], lead: str) -> list[str]:
    return [lead, *_way(joined, joined[lead])] if lead in joined else [lead]


def _joined_by(now: Forest, target: str, source: str) -> str | None:
    joined = {lead: edge.target for lead, edge in now.edges.items()}
    ways = _way(joined, source), _way(joined, target)
    if not set(ways[0]) & set(ways[1]):
        return None
    passed = [lead for lead in ways[0] if lead not in ways[1]]
    named = [lead for lead in passed if lead == source or source in now.edges[lead].named]
    return named[-1] if named else None


class Looked(str):
    """A lead that counts how often any lead is looked up or compared."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        """Counts."""
        Looked.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        """Counts."""
        Looked.looks += 1
        return super().__eq__(other)


@pytest.mark.parametrize("target", ["trunk-99", "other-0"], ids=["above", "on another branch"])
def test_an_unmerge_of_many_looks_at_each_edge_a_few_times(target: str) -> None:
    """Lanes of the same worker wait meanwhile: what a chain of merges costs is not its edges times its sources times its depth."""
    trunk, other = ([Looked(f"{name}-{n}") for n in range(100)] for name in ("trunk", "other"))
    chains = [*pairwise(trunk), *pairwise([*other, trunk[-1]])]
    now = Forest({lead: Edge(above, frozenset({lead})) for lead, above in chains})
    Looked.looks = 0
    change = merge.unmerge(now, Looked(target), trunk[49:99])
    assert len(change.named) == 50
    steps = sum(range(1, 51))  # from each source up to the target's own way
    assert Looked.looks < 20 * len(now.edges) + 6 * steps


def test_a_command_is_decided_by_its_kind() -> None:
    """Merge and unmerge are the two kinds."""
    now = forest(("B", "A"))
    command = MergeCommand(NO_RECORD, "m", "acme", "B", ("A", "X"), None, "merge", 0)
    assert merge.decide(now, command) == merge.merge(now, "B", "AX")
    assert merge.decide(now, replace(command, kind="unmerge")) == merge.unmerge(now, "B", "AX")
