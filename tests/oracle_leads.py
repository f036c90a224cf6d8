"""Merges from the text (M1, M3, M7): a forest of edges root -> root; a lead's root is found by walking up."""

from dataclasses import dataclass, field
from typing import Any

from tests.oracle_parse import Message, RefusedError, loads


@dataclass(frozen=True)
class MergeAsked:
    """A valid message of the merge topic, repeats among its sources dropped."""

    org_unit: str
    target: str
    sources: tuple[str, ...]
    requested_by: str | None
    kind: str


@dataclass(frozen=True)
class Edge:
    """One root joined to another; ``named`` are the sources as the merge named them."""

    org_unit: str
    source: str
    target: str
    named: tuple[str, ...]


@dataclass
class Forest:
    """All merges that stand."""

    edges: list[Edge] = field(default_factory=list)

    def root(self, org_unit: str, lead: str) -> str:
        """The surviving lead."""
        up = {e.source: e.target for e in self.edges if e.org_unit == org_unit}
        while lead in up:
            lead = up[lead]
        return lead

    def one_with(self, org_unit: str, lead: str) -> set[str]:
        """Every lead with the same root, itself included."""
        known = {x for e in self.edges if e.org_unit == org_unit for x in (e.source, e.target)}
        if lead not in known:
            return {lead}
        root = self.root(org_unit, lead)
        return {x for x in known if self.root(org_unit, x) == root}

    def join(self, org_unit: str, target_root: str, sources: list[str]) -> None:
        """Join the class of each source to a root; the sources are outside its class."""
        roots = {self.root(org_unit, s): None for s in sources}
        for root in roots:
            named = tuple(s for s in sources if self.root(org_unit, s) == root)
            self.edges.append(Edge(org_unit, root, target_root, named))

    def part(self, org_unit: str, target: str, sources: tuple[str, ...]) -> list[str]:
        """Take back the merge that joined each source to the target, all found before any is taken back; those it held for."""
        found = {source: self._joined_by(org_unit, target, source) for source in sources}
        taken = [edge for edge in found.values() if edge is not None]
        self.edges = [edge for edge in self.edges if edge not in taken]
        return [source for source, edge in found.items() if edge is not None]

    def _joined_by(self, org_unit: str, target: str, source: str) -> Edge | None:
        """The last edge above the source that names it, or is its own, and without which the target is not below or beside it."""
        above, found = self._way_up(org_unit, target), None
        way = self._way_up(org_unit, source)
        if way[-1] != above[-1]:
            return None
        up = {e.source: e for e in self.edges if e.org_unit == org_unit}
        for lead in way:
            if lead in above:
                break
            if source in (*up[lead].named, lead):
                found = up[lead]
        return found

    def _way_up(self, org_unit: str, lead: str) -> list[str]:
        """The lead, what it was joined to, and so on."""
        up, way = {e.source: e.target for e in self.edges if e.org_unit == org_unit}, [lead]
        while way[-1] in up:
            way.append(up[way[-1]])
        return way


def merge_asked(message: Message) -> MergeAsked:
    """Read a message of the merge topic.  Raises ``RefusedError``."""
    fields = loads(message.value)
    sources = fields.get("source_lead_ids")
    if not isinstance(sources, list) or not 1 <= len(sources) <= 500:
        raise RefusedError("source_lead_ids is no list of 1 to 500")
    kind = fields.get("kind") if fields.get("kind") is not None else "merge"
    requested_by = fields.get("requested_by")
    if kind not in ("merge", "unmerge") or not isinstance(requested_by, str | None):
        raise RefusedError("kind or requested_by is wrong")
    return MergeAsked(
        org_unit=_id(fields.get("org_unit"), 64),
        target=_id(fields.get("target_lead_id"), 128),
        sources=tuple(dict.fromkeys(_id(s, 128) for s in sources)),
        requested_by=requested_by,
        kind=kind,
    )


def _id(value: Any, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise RefusedError("an id is missing, no string or of a wrong length")
    if "\x00" in value or any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise RefusedError("an id holds NUL or a lone surrogate")
    return value
