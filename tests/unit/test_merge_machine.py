"""Any sequence of merges and unmerges against a naive model: a list of joins, and classes found by flooding it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct

from processor.pure import merge
from processor.pure.merge import Change, Edge, Forest

LEADS = tuple("ABCDEFGH")
leads = st.sampled_from(LEADS)
several = st.lists(leads, min_size=1, max_size=4)


class Join(Struct, frozen=True):
    """A live merge of one class into another, by their roots."""

    lower: str
    upper: str
    named: frozenset[str]


def flood(joins: list[Join], lead: str) -> frozenset[str]:
    """All leads that joins connect with one."""
    reached = {lead}
    for _ in LEADS:
        for join in joins:
            if reached & {join.lower, join.upper}:
                reached |= {join.lower, join.upper}
    return frozenset(reached)


def survivor(joins: list[Join], lead: str) -> str:
    """The only lead of a class that was never joined to another."""
    (root,) = flood(joins, lead) - {join.lower for join in joins}
    return root


def separates(joins: list[Join], join: Join, target: str, source: str) -> bool:
    """Whether a join joined the source to the target: without it they are apart, each on its side."""
    if target not in flood(joins, source):
        return False
    rest = [other for other in joins if other != join]
    return source in flood(rest, join.lower) and target in flood(rest, join.upper)


class Merges(RuleBasedStateMachine):
    """The forest and the model, side by side."""

    def __init__(self) -> None:
        """Nobody was ever merged."""
        super().__init__()
        self.forest = Forest()
        self.joins: list[Join] = []
        self.epochs = dict.fromkeys(LEADS, 0)
        self.last = 0

    @rule(target_lead=leads, sources=several)
    def merge(self, target_lead: str, sources: list[str]) -> None:
        """Each class of a source is joined to the survivor, unless it is its own."""
        root = survivor(self.joins, target_lead)
        before = list(self.joins)
        for source in dict.fromkeys(sources):
            theirs = survivor(before, source)
            if theirs != root and theirs not in {join.lower for join in self.joins}:
                names = frozenset(s for s in sources if survivor(before, s) == theirs)
                self.joins.append(Join(theirs, root, names))
        change = merge.merge(self.forest, target_lead, sources)
        flat = {
            x: Edge(survivor(before, x), frozenset()) for x in LEADS if survivor(before, x) != x
        }
        assert change == merge.merge(Forest(flat), target_lead, sources)
        wanted = [s for s in dict.fromkeys(sources) if survivor(before, s) != root]
        self.compare(change, wanted, before)

    @rule(target_lead=leads, sources=several)
    def unmerge(self, target_lead: str, sources: list[str]) -> None:
        """Of the joins that separate a source from the target, the latest that it was named in is taken away."""
        before, wanted = list(self.joins), []
        for source in dict.fromkeys(sources):
            for join in reversed(before):
                named = source in join.named or source == join.lower
                if named and separates(before, join, target_lead, source):
                    wanted.append(source)
                    self.joins = [other for other in self.joins if other != join]
                    break
        self.compare(merge.unmerge(self.forest, target_lead, sources), wanted, before)

    def compare(self, change: Change, wanted: list[str], before: list[Join]) -> None:
        """The change names what the model found; classes that are not what they were have a new epoch."""
        self.last += 1
        assert change.named == tuple(wanted)
        old = {flood(before, lead) for lead in LEADS}
        for lead in LEADS:
            if flood(self.joins, lead) not in old:
                self.epochs[lead] = self.last
        for root, parted in change.parted.items():
            assert parted == flood(self.joins, root)
        self.forest = merge.apply(self.forest, change, self.last)

    @invariant()
    def everyone_has_the_same_class_root_and_epoch(self) -> None:
        """What remains decides, whatever happened before."""
        for lead in LEADS:
            root = survivor(self.joins, lead)
            assert merge.root(self.forest, lead) == root
            assert merge.one_with(self.forest, lead) == flood(self.joins, lead)
            assert merge.path(self.forest, lead)[-1] == root
            assert self.forest.epochs.get(root, 0) == self.epochs[root]


Merges.TestCase.settings = settings(stateful_step_count=20, deadline=None)
TestMerges = Merges.TestCase
