"""What the fold of engagement knows, kept in memory and in full."""

from collections.abc import Mapping, Sequence

import msgspec

from processor.pure.engagement import Lead, LeadKey, Past, Ranked, Rules, fold
from processor.pure.enriched import Organic, Relinked
from processor.pure.sessions import GAP_MS, Session, joined
from processor.pure.surges import SurgeRule

ORG = "acme"
RULE = SurgeRule(frozenset({"Page View", "Form Submit"}), 3, 60_000)
RULES = Rules({"Page View": 1.0, "Email Open": 0.5, "Form Submit": 10.0}, RULE)


class Memory:
    """Everything that was ever folded, and the forest of merges."""

    def __init__(self) -> None:
        self.roots: dict[str, str] = {}
        self.events: dict[str, Organic] = {}
        self.leads: dict[LeadKey, Lead] = {}
        self.ranked: dict[LeadKey, Ranked] = {}
        self.sessions: dict[LeadKey, dict[int, Session]] = {}
        self.surges: set[tuple[LeadKey, int]] = set()
        self.told: list[dict[str, object]] = []

    def apply(self, events: Sequence[Organic], links: Sequence[Relinked] = ()) -> None:
        """A batch; what is known by its id is left out, as the store does."""
        firsts = {event.id: event for event in reversed(events) if event.id not in self.events}
        batch = [firsts.pop(event.id) for event in events if event.id in firsts]
        change = fold(batch, links, self._past(batch, links), RULES)
        self.events |= {event.id: event for event in batch}
        self.leads |= change.leads
        self.ranked |= change.ranked
        for key, start in change.ended:
            del self.sessions[key][start]
        for key, session in change.sessions:
            assert session.start not in self.sessions.setdefault(key, {})
            self.sessions[key][session.start] = session
        self.surges |= set(change.surges)
        self.told += [msgspec.json.decode(told.value) for told in change.told]

    def class_of(self, root: str) -> list[str]:
        """The leads that are one with a root."""
        return [root, *(lead for lead, its in self.roots.items() if its == root)]

    def sessions_of(self, root: str) -> list[tuple[int, int, int]]:
        """Of its class."""
        own = [
            s for lead in self.class_of(root) for s in self.sessions.get((ORG, lead), {}).values()
        ]
        return [(one.start, one.end, one.events) for one in joined(own)]

    def surges_of(self, root: str) -> list[int]:
        """Told of its class."""
        leads = self.class_of(root)
        return [at for (_, lead), at in self.surges if lead in leads]

    def _past(self, events: Sequence[Organic], links: Sequence[Relinked]) -> Past:
        named = {event.lead_id for event in events} | {lead for one in links for lead in one.leads}
        roots = {self.roots.get(lead, lead) for lead in named}
        members = {(ORG, lead): root for root in roots for lead in self.class_of(root)}
        chosen = [e for e in self.events.values() if e.event_type in RULE.types]
        return Past(
            roots=members,
            leads={key: self.leads[key] for key in members if key in self.leads},
            ranked={key: self.ranked[key] for key in members if key in self.ranked},
            sessions=self._near(events),
            times={
                (ORG, root): [e.at for e in chosen if self.roots.get(e.lead_id, e.lead_id) == root]
                for root in roots
            },
            told={(ORG, root): self.surges_of(root) for root in roots},
        )

    def _near(self, events: Sequence[Organic]) -> Mapping[LeadKey, Sequence[Session]]:
        found: dict[LeadKey, list[Session]] = {}
        for event in events:
            key = ORG, event.lead_id
            for one in self.sessions.get(key, {}).values():
                if one.start - GAP_MS <= event.at <= one.end + GAP_MS:
                    near = found.setdefault(key, [])
                    near += [] if one in near else [one]
        return found
