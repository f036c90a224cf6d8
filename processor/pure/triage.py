"""What an event meets before its past is asked: the attribute filter that matches it and the windows it enters."""

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import mul

from processor.pure.parts import parts
from processor.pure.types import AttributeFilter, Case, Event, OrgRules, Root, Rules

_NO_RULES = OrgRules(velocity={}, attributes={})
_MUCH = 16 << 20
"""Bytes of metadata times filters: some tenths of a second."""
_PART = 64 << 10
"""Bytes of metadata."""


def triage(event: Event, root: Root, rules: Rules, *, counted: bool | None = None) -> Case:
    """The case of an event; `counted` overrides whether it enters windows, for an event whose stored row says so."""
    org_rules = rules.org_units.get(event.org_unit, _NO_RULES)
    matched = match(event, org_rules)
    if counted is None:
        counted = matched is None or rules.order == "velocity,metadata"
    watching = org_rules.velocity.get(event.event_type, ()) if counted else ()
    return Case(event=event, root=root, matched=matched, counted=counted, watching=watching)


def match(event: Event, org_rules: OrgRules) -> AttributeFilter | None:
    """The matching attribute filter with the smallest id."""
    for candidate in _candidates(event.event_type, org_rules):
        if candidate.matches(event.metadata):
            return candidate
    return None


def looks(events: Sequence[Event], rules: Rules) -> int:
    """How many filters look at the events, each at each of them: what deciding them costs."""
    found = 0
    kinds = Counter([(event.org_unit, event.event_type) for event in events])
    for (org_unit, event_type), number in kinds.items():
        org_rules = rules.org_units.get(org_unit, _NO_RULES)
        velocity = org_rules.velocity.get(event_type, ())
        found += number * (len(velocity) + len(_candidates(event_type, org_rules)))
    return found


def slow(events: Sequence[Event], rules: Rules) -> bool:
    """Whether filters may look at the events for so long that nobody should have to wait for it: for patterns, or many at much text."""
    kinds = {(event.org_unit, event.event_type) for event in events}
    looking = {
        (org_unit, event_type): _candidates(event_type, rules.org_units.get(org_unit, _NO_RULES))
        for org_unit, event_type in kinds
    }
    if any(candidate.searches for found in looking.values() for candidate in found):
        return True
    sizes = [len(event.metadata_json) for event in events]
    if sum(sizes) * max(map(len, looking.values()), default=0) <= _MUCH:  # as nearly always
        return False
    numbers = [len(looking[event.org_unit, event.event_type]) for event in events]
    looked: int = sum(map(mul, sizes, numbers))
    return looked > _MUCH


def in_parts(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """The events in order, a few at a time where their metadata is large."""
    return parts(events, lambda event: len(event.metadata_json), _PART)


def _candidates(event_type: str, org_rules: OrgRules) -> Sequence[AttributeFilter]:
    """The attribute filters for a type."""
    candidates = org_rules.attributes.get(event_type)
    return org_rules.attributes.get("", ()) if candidates is None else candidates
