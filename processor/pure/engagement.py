"""Engagement: what organic events make of leads.  A fold over a batch, given what is known of the leads it touches.

Facts are kept by the lead an event named, which no merge changes; a lead that stands, a root, is the sum of its class.  So a merge or
unmerge moves nothing: its roots are summed up anew.  But for which surging event is told, and in which steps a score is told, everything is a
function of the set of events and of the forest of merges.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from processor.pure.enriched import Organic, Relinked
from processor.pure.score import NOTHING, Score, added, score_at, worth
from processor.pure.sessions import Session, joined
from processor.pure.surges import SurgeRule, surges
from processor.pure.timestamps import to_text

LeadKey: TypeAlias = tuple[str, str]
"""Org unit and lead."""
_Kind: TypeAlias = Literal["lead_created", "score_update", "surge"]


class Rules(Struct, frozen=True):
    """What counts how much."""

    weights: Mapping[str, float]
    """By event type; other types weigh nothing, yet make leads and sessions."""
    surge: SurgeRule


class Lead(Struct, frozen=True):
    """The organic events that named a lead."""

    events: int
    sessions: int
    first: int
    last: int
    score: Score


class Ranked(Struct, frozen=True):
    """A root as readers have it; what is known of the past is its events and score."""

    events: int
    """Nought: it is merged away, or an unmerge took all it had."""
    score: Score
    first: int | None = None
    last: int | None = None
    sessions: int | None = None
    """None of several parts too: sessions of different leads join, so they are to be counted."""
    parts: Sequence[str] = ()
    """The leads whose events these are."""


_NO_ROOT = Ranked(0, NOTHING)


class Past(Struct, frozen=True):
    """What is stored of the leads that a batch touches."""

    roots: Mapping[LeadKey, str]
    """Of every lead of their classes."""
    leads: Mapping[LeadKey, Lead]
    ranked: Mapping[LeadKey, Ranked]
    sessions: Mapping[LeadKey, Sequence[Session]]
    """Those of a lead that its new events touch."""
    times: Mapping[LeadKey, Sequence[int]]
    """By root: events of surge types around the new ones."""
    told: Mapping[LeadKey, Sequence[int]]
    """By root: the surges told around them."""


class Told(Struct, frozen=True):
    """A message to publish."""

    lead_id: str
    value: bytes


class Change(Struct, frozen=True):
    """What a batch makes of them."""

    leads: Mapping[LeadKey, Lead]
    ended: Sequence[tuple[LeadKey, int]]
    """Sessions, by their start, that are now part of others."""
    sessions: Sequence[tuple[LeadKey, Session]]
    ranked: Mapping[LeadKey, Ranked]
    surges: Sequence[tuple[LeadKey, int]]
    """By the lead whose event made it."""
    told: Sequence[Told]


class _Saying(Struct, frozen=True):
    """The fields of a message, in their order."""

    type: _Kind
    org_unit: str
    lead_id: str
    score: float
    at: str


def points(events: Iterable[Organic]) -> Mapping[LeadKey, Sequence[Session]]:
    """The sessions that the events of each lead make by themselves."""
    times: defaultdict[LeadKey, list[Session]] = defaultdict(list)
    for event in events:
        times[event.org_unit, event.lead_id].append(Session(event.at, event.at, 1))
    return {key: joined(sessions) for key, sessions in times.items()}


def fold(events: Sequence[Organic], links: Sequence[Relinked], past: Past, rules: Rules) -> Change:
    """What new events, each with an id that was not known, and merges make of the past."""
    fresh = points(events)
    scores: defaultdict[LeadKey, list[Score]] = defaultdict(list)
    for event in events:
        weight = rules.weights.get(event.event_type, 0.0)
        scores[event.org_unit, event.lead_id].append(worth(weight, event.at))
    grown = {key: _grown(past, key, fresh[key], scores[key]) for key in fresh}
    surging = _surges(events, past, rules.surge)
    roots = [_root(past, (link.org_unit, lead)) for link in links for lead in link.leads]
    roots = [*(_root(past, key) for key in fresh), *roots]
    relinked = max((link.at for link in links), default=0)
    ranked, told = _ranked(dict.fromkeys(roots), past, {**past.leads, **grown}, relinked)
    return Change(
        leads=grown,
        ended=[(key, one.start) for key in fresh for one in past.sessions.get(key, ())],
        sessions=[
            (key, one)
            for key, own in fresh.items()
            for one in joined([*past.sessions.get(key, ()), *own])
        ],
        ranked=ranked,
        surges=surging,
        told=[*told, *_told_surges(surging, past, ranked)],
    )


def _root(past: Past, lead: LeadKey) -> LeadKey:
    return lead[0], past.roots[lead]


def _grown(past: Past, key: LeadKey, fresh: Sequence[Session], scores: Sequence[Score]) -> Lead:
    before, near = past.leads.get(key), past.sessions.get(key, ())
    lead = Lead(
        events=sum(session.events for session in fresh),
        sessions=len(joined([*near, *fresh])) - len(near),
        first=fresh[0].start,
        last=fresh[-1].end,
        score=added(scores),
    )
    return lead if before is None else _sum([before, lead])


def _sum(leads: Sequence[Lead]) -> Lead:
    """All their events; sessions are those of the parts."""
    return Lead(
        events=sum(lead.events for lead in leads),
        sessions=sum(lead.sessions for lead in leads),
        first=min(lead.first for lead in leads),
        last=max(lead.last for lead in leads),
        score=added(lead.score for lead in leads),
    )


def _surges(
    events: Sequence[Organic], past: Past, rule: SurgeRule
) -> Sequence[tuple[LeadKey, int]]:
    """The lead that makes each surge to tell, and its time."""
    found: list[tuple[LeadKey, int]] = []
    times = {key: sorted(known) for key, known in past.times.items()}
    told = {key: list(known) for key, known in past.told.items()}
    for event in events:
        if event.event_type not in rule.types:
            continue
        key = event.org_unit, event.lead_id
        root = _root(past, key)
        insort(times.setdefault(root, []), event.at)
        new = surges(times[root], event.at, told.setdefault(root, []), rule)
        told[root] += new
        found += [(key, at) for at in new]
    return found


def _ranked(
    roots: Iterable[LeadKey], past: Past, leads: Mapping[LeadKey, Lead], relinked: int
) -> tuple[Mapping[LeadKey, Ranked], Sequence[Told]]:
    """The roots, the leads merged into them, and what is told of both; `relinked`: when a merge took what a root had."""
    classes: defaultdict[LeadKey, list[LeadKey]] = defaultdict(list)
    for key in sorted(past.roots):
        classes[_root(past, key)].append(key)
    ranked: dict[LeadKey, Ranked] = {}
    told: list[Told] = []
    for root in roots:
        whole = _rank({key[1]: leads[key] for key in classes[root] if key in leads})
        first = relinked if whole.first is None else whole.first
        last = relinked if whole.last is None else whole.last
        for member in classes[root]:
            known = past.ranked.get(member)
            now = whole if member == root else _NO_ROOT
            if known or now.events:
                ranked[member] = now
            told += _told(member, now, known, (first, last))
    return ranked, told


def _rank(parts: Mapping[str, Lead]) -> Ranked:
    if not parts:
        return _NO_ROOT
    lead = _sum(list(parts.values()))
    sessions = lead.sessions if len(parts) == 1 else None
    return Ranked(lead.events, lead.score, lead.first, lead.last, sessions, list(parts))


def _told_surges(
    surging: Sequence[tuple[LeadKey, int]], past: Past, ranked: Mapping[LeadKey, Ranked]
) -> Iterable[Told]:
    for key, at in surging:
        root = _root(past, key)
        yield _saying("surge", root, ranked[root].score, at)


def _told(
    lead: LeadKey, now: Ranked, known: Ranked | None, times: tuple[int, int]
) -> Sequence[Told]:
    """A lead is created once, however often it is merged away and comes back; `times` are its first and last."""
    first, last = times
    told = []
    if now.events and known is None:
        told.append(_saying("lead_created", lead, now.score, first))
    if now.score != (known.score if known else NOTHING):
        told.append(_saying("score_update", lead, now.score, last))
    return told


def _saying(kind: _Kind, lead: LeadKey, score: Score, at: int) -> Told:
    org_unit, lead_id = lead
    said = _Saying(kind, org_unit, lead_id, score_at(score, at), to_text(at))
    return Told(lead_id, msgspec.json.encode(said))
