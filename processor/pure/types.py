"""The vocabulary of the decision path: what parse, triage, velocity and the pipeline hand each other.

Everything here is a frozen value.  Times are integers: milliseconds since 1970 (UTC), event time unless a name says otherwise.
What exists once for an event is in no cycle, so the garbage collector need not look at it.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Raw, Struct

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Reason: TypeAlias = Literal["inorganic", "inorganic_grouped", "metadata_filter"]
Stage: TypeAlias = Literal["parse", "validate", "store", "publish", "merge"]
FilterOrder: TypeAlias = Literal["velocity,metadata", "metadata,velocity"]


class Record(Protocol):
    """One Kafka record, as aiokafka's ``ConsumerRecord`` gives it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int | None:
        """Milliseconds; None or negative where the record has none."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Rejected(Struct, frozen=True):
    """A record that cannot be processed: it becomes exactly one dead letter."""

    record: Record
    stage: Stage
    error: str
    """A snake_case code."""
    reason: str
    """A sentence that names the field."""


class Event(Struct, frozen=True, gc=False):
    """A raw event that passed ``parse``."""

    record: Record
    org_unit: str
    id: str
    lead_id: str
    """The lead the producer named; the surviving lead is found later."""
    event_type: str
    """Normalised to Title Case words."""
    metadata: dict[str, Json]
    metadata_json: bytes
    """``metadata`` as compact UTF-8 JSON."""
    occurred_at: int


class MergeCommand(Struct, frozen=True):
    """A request to merge or unmerge leads, from the merge topic."""

    record: Record
    message_id: str
    """Derived from where the message came from, so a redelivery and a replay have the same."""
    org_unit: str
    target_lead_id: str
    source_lead_ids: tuple[str, ...]
    """As asked, without repeats."""
    requested_by: str | None
    kind: Literal["merge", "unmerge"]
    occurred_at: int


class VelocityFilter(Struct, frozen=True):
    """An enabled velocity filter, as rules hold it."""

    id: str
    name: str
    version: int
    event_type: str
    threshold: int
    window_ms: int
    keep_first: bool
    revision: int
    """The rule revision that last changed what its windows mean (type, threshold, window, keep_first, enabled again)."""
    newest: int | None
    """The newest stored event time when that revision was committed; None where nothing was stored."""


class Matcher(Protocol):
    """All conditions of an attribute filter, compiled."""

    def __call__(self, metadata: Mapping[str, Json], /) -> bool: ...


class AttributeFilter(Struct, frozen=True):
    """An enabled metadata filter, as rules hold it."""

    id: str
    name: str
    version: int
    event_type: str
    """Empty: every type."""
    matches: Matcher
    searches: bool = False
    """For a pattern, which may take long where text is long."""


class OrgRules(Struct, frozen=True):
    """The enabled filters of one org unit, each tuple ascending by id (bytes)."""

    velocity: Mapping[str, tuple[VelocityFilter, ...]]
    """By event type."""
    attributes: Mapping[str, tuple[AttributeFilter, ...]]
    """By event type, the filters for every type included; key "" serves the types not named."""


class Rules(Struct, frozen=True):
    """The rule set of one revision."""

    revision: int
    order: FilterOrder
    org_units: Mapping[str, OrgRules]


class Root(Struct, frozen=True, gc=False):
    """The surviving lead of a lead, and the epoch of its class (the last merge or unmerge that touched it, 0 for nearly all)."""

    lead_id: str
    epoch: int


class Case(Struct, frozen=True, gc=False):
    """An event with everything needed to judge it but the past."""

    event: Event
    root: Root
    matched: AttributeFilter | None
    """The attribute filter that matches it, smallest id."""
    counted: bool
    """It enters the windows of its type."""
    watching: tuple[VelocityFilter, ...]
    """The velocity filters whose windows it enters; empty unless counted."""


class Seen(Struct, frozen=True, gc=False):
    """What the committed past says about one event in one window."""

    count: int
    """Members in (t − W, t], exact up to N + 1; the event itself among them where it is cached or, from the store, stored.
    All is nought where not one of the events that were asked about can exceed."""
    cached: bool
    """Redis held the event when the window was read."""
    from_store: bool
    """Judged from Postgres, because its time reaches below what the window holds."""
    stored: bool
    """Postgres held the event when the batch was read; only looked up where something is judged from there."""
    burst_id: str | None
    """Burst of an exceeding event less than W away, other than itself; only for keep-first filters."""
    calm: bool = False
    """The window holds so little that no event of the batch can exceed in it; the other answers are then left out."""


class Facts(Struct, frozen=True, gc=False):
    """What the first committed row of an event did to windows."""

    counted: bool
    rules: int
    """The rule revision it was judged by."""
    exceeded: Mapping[int, str]
    """Revision of each keep-first filter that it exceeded → burst id."""


class Ruling(Struct, frozen=True, gc=False):
    """The verdict on one event, before it is stored."""

    case: Case
    reason: Reason | None
    suppressed_by: Mapping[str, Json] | None
    facts: Facts


class EnrichedRow(Struct, frozen=True, gc=False):
    """A stored event as it is published: the fields of the value, in their order."""

    id: str
    org_unit: str
    lead_id: str
    """The surviving lead."""
    original_lead_id: str | None
    event_type: str
    metadata: Raw
    """Compact UTF-8 JSON."""
    suppression_reason: Reason | None
    created_at: str
    """When it occurred; RFC 3339, as `timestamps.to_text` has it."""
    received_at: str
    """When it was first committed."""
    suppressed_by: Mapping[str, Json] | None


class Message(Struct, frozen=True, gc=False):
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp: int | None
    """Milliseconds; the input record's.  None: that of its publication."""
    partition: int | None
    """The input partition where key and input key agree; None: by hash of the key."""
    source: Record | None = None
    """The record it answers."""
    stage: Stage | None = None
    """The stage that refused the record: the message is its dead letter."""


class Outcome(Struct, frozen=True):
    """What a batch leaves to do: one transaction publishes the messages and commits the offset."""

    messages: Sequence[Message]
    next_offset: int
