"""Who is who after the merges that were asked for, worked out from the text of the requests alone.

It may import nothing of the program it checks.
"""

from collections.abc import Mapping, Sequence

from processor.demo.ledger import Content, Merge


class Forest:
    """Flat: every merged-away lead points to its survivor."""

    def __init__(self) -> None:
        self._roots: dict[tuple[str, str], str] = {}
        self._classes: dict[tuple[str, str], list[str]] = {}

    @property
    def redirects(self) -> Mapping[tuple[str, str], str]:
        """(org unit, lead) → surviving lead."""
        return self._roots

    def root(self, org_unit: str, lead: str) -> str:
        """The surviving lead."""
        return self._roots.get((org_unit, lead), lead)

    def join(self, asked: Content) -> Sequence[str]:
        """Carries out a merge; the sources for which there was something to do."""
        if not isinstance(asked, Merge):
            return ()
        org_unit, survivor = asked.org_unit, self.root(asked.org_unit, asked.target)
        roots = {source: self.root(org_unit, source) for source in asked.sources}
        for root in set(roots.values()) - {survivor}:
            whole = [root, *self._classes.pop((org_unit, root), [])]
            self._classes.setdefault((org_unit, survivor), []).extend(whole)
            self._roots.update({(org_unit, lead): survivor for lead in whole})
        return [source for source in asked.sources if roots[source] != survivor]
