"""Rows of Postgres that others may read: their column names and types are a contract, further columns may come."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.messages import Reason, Suppression
from schemas.metadata import StoredMetadata
from schemas.values import EventId, FilledText, LeadId, Message, OrgUnit


class EventRow(Message):
    """Table ``events``, primary key ``(org_unit, id)``: every event ever accepted, with its verdict."""

    org_unit: OrgUnit
    id: EventId
    lead_id: LeadId
    """The surviving lead."""
    original_lead_id: LeadId | None
    """The lead the event named, where that was merged into another."""
    event_type: FilledText
    metadata: StoredMetadata
    suppression_reason: Reason | None
    suppressed_by: Suppression | None
    occurred_at: AwareDatetime
    received_at: AwareDatetime
    """First commit."""
    source_partition: Annotated[int, Field(ge=0)]
    """Where its record stood; after a replay the place of the replayed one."""
    source_offset: Annotated[int, Field(ge=0)]
    deleted_at: AwareDatetime | None
    """A tombstone: metadata is empty and the id stays taken."""


class LeadRedirectRow(Message):
    """Table ``lead_redirects``: flat, `to_lead` is always a surviving lead."""

    org_unit: OrgUnit
    from_lead: LeadId
    to_lead: LeadId
