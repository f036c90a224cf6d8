"""The account: everything that was sent against everything that was stored, published and refused.

Each difference is a sentence.  It may import nothing of the program it checks.  Times are milliseconds since 1970 (UTC).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from processor.demo.forest import Forest
from processor.demo.ledger import Content, Event, Merge, Place, Sent, digest

MERGED = "Lead Merged"
_DERIVED = re.compile(r"[0-9a-f]{32}")
Key: TypeAlias = tuple[str, str]
"""Org unit and event id."""


class Fields(NamedTuple):
    """All fields of an event but its lead, JSON as its digest."""

    org_unit: str
    id: str
    event_type: str
    metadata: bytes
    suppression_reason: str | None
    suppressed_by: bytes
    created_at: int
    received_at: int


class Row(NamedTuple):
    """A stored event."""

    place: Place
    lead_id: str
    original_lead_id: str | None
    fields: Fields
    merged: bytes | None
    """Of a ``Lead Merged`` event: the digest of who was merged and who asked."""


class Message(NamedTuple):
    """An enriched event as it was read; ``key`` and ``headers`` are the record's."""

    lead_id: str
    original_lead_id: str | None
    fields: Fields
    key: str
    headers: Mapping[str, str]


class Letter(NamedTuple):
    """A dead letter; ``content`` is the `payload_digest` of its key and payload."""

    place: Place
    content: bytes


@dataclass(frozen=True)
class Found:
    """What the processor has made of it."""

    rows: Sequence[Row]
    messages: Sequence[Message]
    letters: Sequence[Letter]
    redirects: Mapping[tuple[str, str], str]
    """(org unit, lead) → surviving lead."""


@dataclass(frozen=True)
class Account:
    """What became of what was sent."""

    stored: int
    duplicates: int
    letters: int
    reasons: Mapping[str | None, int]
    """Of the stored events."""
    joined: int
    no_ops: int
    """Merges, by whether there was something to do."""
    differences: Sequence[str]


def account(sent: Sequence[Sent], found: Found) -> Account:
    """Everything that does not fit."""
    forest = Forest()
    joined = {s.place: forest.join(s.content) for s in sorted_merges(sent)}
    books = _Books(sent, found, forest, {p: named for p, named in joined.items() if named})
    differences = [
        *books.of_sent(),
        *books.of_rows(),
        *books.of_messages(),
        *books.of_letters(),
        *books.of_merges(),
    ]
    events = [row.fields for row in found.rows if row.place not in joined]
    return Account(
        stored=len(events),
        duplicates=sum(s.kind == "duplicate" for s in sent),
        letters=len(found.letters),
        reasons=Counter(fields.suppression_reason for fields in events),
        joined=len(books.joined),
        no_ops=len(joined) - len(books.joined),
        differences=differences,
    )


def sorted_merges(sent: Iterable[Sent]) -> Iterator[Sent]:
    """In the order they are applied: an org unit's merges are on one partition."""
    return (s for s in sorted(sent, key=lambda s: s.place) if s.kind == "merge")


class _Books:
    def __init__(
        self,
        sent: Sequence[Sent],
        found: Found,
        forest: Forest,
        joined: Mapping[Place, Sequence[str]],
    ) -> None:
        self.joined = joined
        self._sent, self._found, self._forest = sent, found, forest
        self._by_place = {row.place: row for row in found.rows}
        self._by_key = {key_of(row.fields): row for row in found.rows}

    def of_sent(self) -> Iterator[str]:
        """Every event has its row, every duplicate that of another message, every bad message none."""
        for entry in self._sent:
            row = self._by_place.get(entry.place)
            if entry.kind == "event":
                yield from self._event(entry, row)
            elif entry.kind != "merge" and row is not None:
                yield f"{_at(entry.place)}: a {entry.kind} message is stored as {row.fields.id}"
            elif entry.kind == "duplicate" and not self._known(entry.content):
                yield f"{_at(entry.place)}: no message with the duplicate's id is stored"

    def _known(self, said: Content) -> bool:
        return isinstance(said, Event) and (said.org_unit, said.id) in self._by_key

    def _event(self, entry: Sent, row: Row | None) -> Iterator[str]:
        said = entry.content
        if row is None or not isinstance(said, Event):
            yield f"{_at(entry.place)}: an event is not stored"
            return
        if said.id is None and not _DERIVED.fullmatch(row.fields.id):
            yield f"{_at(entry.place)}: id is {row.fields.id}, should be derived"
        expected = {
            "org_unit": said.org_unit,
            "id": said.id or row.fields.id,
            "event_type": said.event_type,
            "metadata": said.metadata,
            "created_at": said.occurred_at,
        }
        for name, value in expected.items():
            if getattr(row.fields, name) != value:
                yield f"{_at(entry.place)}: {name} of the row is not what was sent"
        if raw_lead(row) != said.lead_id:
            yield f"{_at(entry.place)}: stored for lead {raw_lead(row)}, sent for {said.lead_id}"

    def of_rows(self) -> Iterator[str]:
        """Every row comes from one message of ours, and stands under the surviving lead."""
        events = {s.place for s in self._sent if s.kind == "event"} | self.joined.keys()
        for row in self._found.rows:
            if row.place not in events:
                yield f"{_at(row.place)}: a row of a message that should have none"
            root = self._forest.root(row.fields.org_unit, raw_lead(row))
            if row.lead_id != root or row.original_lead_id == root:
                leads = f"{row.lead_id} (original {row.original_lead_id})"
                yield f"event {row.fields.id}: lead is {leads}, should be {root}"

    def of_messages(self) -> Iterator[str]:
        """Exactly one for each row, with the same in every field; a merge may have moved the row since."""
        seen: Counter[Key] = Counter()
        for message in self._found.messages:
            key = key_of(message.fields)
            seen[key] += 1
            row = self._by_key.get(key)
            if row is None:
                yield f"event {key[1]}: published, but not stored"
            else:
                yield from self._message(message, row)
        for key in self._by_key:
            if seen[key] != 1:
                yield f"event {key[1]}: published {seen[key]} times"

    def _message(self, message: Message, row: Row) -> Iterator[str]:
        label = f"event {row.fields.id}"
        for name, told, kept in zip(Fields._fields, message.fields, row.fields, strict=True):
            if told != kept:
                yield f"{label}: {name} of the message is not that of the row"
        moved = self._forest.root(row.fields.org_unit, message.lead_id)
        if moved != row.lead_id or raw_lead(message) != raw_lead(row):
            yield f"{label}: lead {message.lead_id} in the message, {row.lead_id} in the row"
        if message.key != message.lead_id or message.headers != headers(message.fields):
            yield f"{label}: key or headers do not fit the message"

    def of_letters(self) -> Iterator[str]:
        """Exactly one for each bad message, with all of it."""
        bad = {s.place: s.content for s in self._sent if s.kind == "bad"}
        seen = Counter(letter.place for letter in self._found.letters)
        for letter in self._found.letters:
            if bad.get(letter.place) != letter.content:
                yield f"{_at(letter.place)}: a dead letter that is not what was sent there"
        for place in bad:
            if seen[place] != 1:
                yield f"{_at(place)}: a bad message has {seen[place]} dead letters"

    def of_merges(self) -> Iterator[str]:
        """Redirects are exactly those of the merges asked for, and each that was no no-op has its event."""
        redirects = self._forest.redirects
        for lead in sorted(redirects.keys() | self._found.redirects.keys()):
            root, kept = redirects.get(lead), self._found.redirects.get(lead)
            if root != kept:
                yield f"lead {lead[1]}: redirected to {kept}, should be {root}"
        for entry in self._sent:
            named = self.joined.get(entry.place)
            if named is not None and isinstance(entry.content, Merge):
                yield from self._merge_event(entry.place, entry.content, named)

    def _merge_event(self, place: Place, asked: Merge, named: Sequence[str]) -> Iterator[str]:
        row = self._by_place.get(place)
        if row is None:
            yield f"{_at(place)}: a merge has no {MERGED} event"
            return
        told = (
            row.fields.event_type,
            row.fields.created_at,
            row.merged,
            row.fields.suppression_reason,
        )
        if told != (MERGED, asked.timestamp, merged_digest(named, asked.requested_by), None):
            yield f"{_at(place)}: its {MERGED} event does not say what was merged"


def key_of(fields: Fields) -> Key:
    """The primary key."""
    return fields.org_unit, fields.id


def raw_lead(of: Row | Message) -> str:
    """The lead that the producer named."""
    return of.lead_id if of.original_lead_id is None else of.original_lead_id


def merged_digest(sources: Sequence[str], requested_by: str | None) -> bytes:
    """Of who was merged, and who asked."""
    return digest([list(sources), requested_by])


def headers(fields: Fields) -> dict[str, str]:
    """What the record's headers should be."""
    always = {"event-id": fields.id, "org-unit": fields.org_unit, "schema-version": "1"}
    reason = fields.suppression_reason
    return always if reason is None else {**always, "suppression-reason": reason}


def _at(place: Place) -> str:
    return f"{place.topic} {place.partition}/{place.offset}"
