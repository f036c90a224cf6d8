"""Who is who after merges: a forest of live edges root → root, and what a command changes in it.

An edge joins two roots that differ, so there is no cycle, and each lead has at most one.  An unmerge takes edges away; every
lead's root is then the root of what remains, which is why nobody needs to remember what a merge moved.  Everything is total.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import assert_never

from msgspec import Struct

from processor.pure.types import MergeCommand


class Edge(Struct, frozen=True):
    """One root joined to another by a merge that stands."""

    target: str
    named: frozenset[str]
    """The sources of that class, as the merge named them."""


class Forest(Struct, frozen=True):
    """The merges of an org unit that stand."""

    edges: Mapping[str, Edge] = MappingProxyType({})
    """By the lead that was joined; a lead without is a root."""
    epochs: Mapping[str, int] = MappingProxyType({})
    """Of each root, the last merge or unmerge that touched its class; absent: 0."""


class Change(Struct, frozen=True):
    """What a command does; a no-op names nothing."""

    survivor: str
    """The root of the target, before and after."""
    named: tuple[str, ...]
    """The sources for which there is something to do: as asked, without no-ops and repeats."""
    joined: Mapping[str, frozenset[str]]
    """The roots that the survivor takes over → the sources that named each."""
    parted: Mapping[str, frozenset[str]]
    """The leads that become roots again → the whole class of each, itself included."""


def root(forest: Forest, lead: str) -> str:
    """The surviving lead."""
    while lead in forest.edges:
        lead = forest.edges[lead].target
    return lead


def one_with(forest: Forest, lead: str) -> frozenset[str]:
    """The class of a lead: all with the same root, itself included."""
    survivor = root(forest, lead)
    return classes(forest, (survivor,))[survivor]


def classes(forest: Forest, roots: Iterable[str]) -> dict[str, frozenset[str]]:
    """The class of each of these roots, itself included; however many they are, each edge is looked at once."""
    joined: dict[str, list[str]] = {}
    for lead, edge in forest.edges.items():
        joined.setdefault(edge.target, []).append(lead)
    return {lead: _below(joined, lead) for lead in roots}


def _below(joined: Mapping[str, Iterable[str]], lead: str) -> frozenset[str]:
    leads = [lead]
    for one in leads:  # it grows by what was joined to each
        leads.extend(joined.get(one, ()))
    return frozenset(leads)


def decide(forest: Forest, command: MergeCommand) -> Change:
    """What a command changes."""
    match command.kind:
        case "merge":
            return merge(forest, command.target_lead_id, command.source_lead_ids)
        case "unmerge":
            return unmerge(forest, command.target_lead_id, command.source_lead_ids)
        case never:
            assert_never(never)


def merge(forest: Forest, target: str, sources: Iterable[str]) -> Change:
    """Join the class of each source to that of the target; only roots count, so flat redirects will do as a forest."""
    survivor = root(forest, target)
    roots = {source: root(forest, source) for source in sources}
    joined: dict[str, frozenset[str]] = {}
    for source, theirs in roots.items():
        if theirs != survivor:
            joined[theirs] = joined.get(theirs, frozenset()) | {source}
    return Change(survivor, tuple(s for s in roots if roots[s] in joined), joined, {})


def unmerge(forest: Forest, target: str, sources: Iterable[str]) -> Change:
    """Take back the merges that joined sources to the target, all found before any is taken back."""
    survivor = root(forest, target)
    edges = joining(forest, target, sources)
    taken = {lead for lead in edges.values() if lead is not None}
    left = Forest({lead: edge for lead, edge in forest.edges.items() if lead not in taken})
    named = tuple(source for source in edges if edges[source] is not None)
    return Change(survivor, named, {}, classes(left, taken))


def joining(forest: Forest, target: str, sources: Iterable[str]) -> dict[str, str | None]:
    """Of each source the lead whose edge joined it to the person the target is: the latest of those on the source's way up that
    the source was named in, or that is its own.  None where there is none, or where the target itself hangs below it.
    """
    above = frozenset(path(forest, target))
    return {source: _joining(forest, above, source) for source in sources}


def _joining(forest: Forest, above: frozenset[str], source: str) -> str | None:
    found, lead = None, source
    while lead not in above:
        edge = forest.edges.get(lead)
        if edge is None:
            return None  # another person
        if lead == source or source in edge.named:
            found = lead
        lead = edge.target
    return found


def path(forest: Forest, lead: str) -> tuple[str, ...]:
    """A lead, what it was joined to, and so on up to its root."""
    leads = [lead]
    while leads[-1] in forest.edges:
        leads.append(forest.edges[leads[-1]].target)
    return tuple(leads)


def apply(forest: Forest, change: Change, merge_id: int) -> Forest:
    """The forest after a change; every class it touched has `merge_id` as its epoch."""
    if not change.named:
        return forest
    edges = {lead: edge for lead, edge in forest.edges.items() if lead not in change.parted}
    edges |= {lead: Edge(change.survivor, named) for lead, named in change.joined.items()}
    touched = {change.survivor, *change.parted}
    epochs = {lead: epoch for lead, epoch in forest.epochs.items() if lead not in change.joined}
    return Forest(edges, epochs | dict.fromkeys(touched, merge_id))
