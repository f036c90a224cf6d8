"""What an event meets before its past is asked: the attribute filter that matches it and the windows it enters."""

from processor.pure.types import AttributeFilter, Case, Event, OrgRules, Root, Rules

_NO_RULES = OrgRules(velocity={}, attributes={})


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
    candidates = org_rules.attributes.get(event.event_type)
    if candidates is None:
        candidates = org_rules.attributes.get("", ())
    for candidate in candidates:
        if candidate.matches(event.metadata):
            return candidate
    return None
