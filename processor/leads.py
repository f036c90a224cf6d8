"""What a worker believes of leads: where they were merged to, and in which epoch.

A belief needs no refresh: a batch decided by a wrong one is refused when it is recorded, with what is right.
"""

from collections import OrderedDict
from collections.abc import Mapping

from processor.pure.types import Root

_MOST = 200_000


class Leads:
    """The leads known to be something else than their own root in epoch 0; the least recently learnt are forgotten first."""

    def __init__(self) -> None:
        self._roots: OrderedDict[tuple[str, str], Root] = OrderedDict()

    def root(self, org_unit: str, lead_id: str) -> Root:
        """The surviving lead of a lead, as far as this worker knows."""
        return self._roots.get((org_unit, lead_id)) or Root(lead_id, 0)

    def learn(self, roots: Mapping[tuple[str, str], Root]) -> None:
        """Corrects beliefs; keys are (org unit, lead)."""
        for lead, root in roots.items():
            self._roots[lead] = root
            self._roots.move_to_end(lead)
        while len(self._roots) > _MOST:
            self._roots.popitem(last=False)
