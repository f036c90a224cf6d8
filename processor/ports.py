"""What the pipeline asks of the outside world, and what it may be answered.  `processor.io` implements these, tests fake them.

Every method raises `Retryable` while what it needs is away, and may be called again with the same arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from processor.pure.types import Case, Facts, Json, Reason, Root, Rules, Ruling, Seen

EventKey: TypeAlias = tuple[str, str]
"""Org unit and event id."""
LeadKey: TypeAlias = tuple[str, str]
"""Org unit and lead."""


class Stored(Struct, frozen=True):
    """The row of an event whose id was known before its batch."""

    received_at: int
    reason: Reason | None
    suppressed_by: Mapping[str, Json] | None
    same_message: bool
    """This very message committed the row; otherwise the event is a duplicate."""
    deleted: bool


class Recorded(Struct, frozen=True):
    """The batch is committed."""

    received_at: int
    """Commit time of the rows that are new, ms."""
    known: Mapping[int, Stored]
    """Rulings, by number, whose id had a row already."""


class StaleRules(Struct, frozen=True):
    """Nothing is stored: the rules in force are newer."""


class StaleRoots(Struct, frozen=True):
    """Nothing is stored: these leads have been merged or unmerged."""

    roots: Mapping[LeadKey, Root]


class KnownIds(Struct, frozen=True):
    """Nothing is stored: these ids have rows that say other than the rulings."""

    others: frozenset[EventKey]
    """Their rows have another lead, type or time."""
    facts: Mapping[EventKey, Facts]
    """Their rows agree, but did other things to windows."""


Answer: TypeAlias = Recorded | StaleRules | StaleRoots | KnownIds


class Reading(Struct, frozen=True):
    """What windows say about cases."""

    cases: Sequence[Case]
    seen: Sequence[Sequence[Seen]]
    """For each case, an answer for each filter it watches."""


class Rulebook(Protocol):
    """The rules in force."""

    @property
    def rules(self) -> Rules: ...

    async def reload(self) -> None:
        """Fetches what changed."""


class Events(Protocol):
    """The events stored."""

    async def record(self, rulings: Sequence[Ruling], rules: int) -> Answer:
        """Stores rulings on events of one lane in order, all or nothing; ids are distinct, `rules` is the revision used."""


class Windows(Protocol):
    """What is committed about windows."""

    async def read(self, cases: Sequence[Case]) -> Reading:
        """What is committed about the cases; those of one org unit and event type are watched by the same filters."""

    async def write(self, reading: Reading, facts: Sequence[Facts]) -> None:
        """The cases that were read are committed: adds the facts of their rows."""
