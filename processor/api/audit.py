"""The audit log, for those who have to answer for what was done."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict

from processor.api.answers import json, time_text
from processor.api.auth import AuditReader
from processor.api.documented import documented
from processor.api.listing import LARGEST_LIMIT, PageNumber, Range, WholeNumber, bounds
from processor.api.services import Serving
from processor.io import audit
from processor.pure.faults import unstorable

Action: TypeAlias = Literal[
    "event.delete",
    "event.purge",
    "filter.create",
    "filter.change",
    "filter.delete",
    "lead.merge",
    "lead.unmerge",
    "token.create",
    "token.revoke",
]

router = APIRouter(tags=["audit"])


class AuditEntry(BaseModel):
    """One deed.  `actor` is a token's name, ``cli USER`` for commands, ``upstream`` for merges nobody is named in."""

    id: int
    at: str
    actor: str
    action: Action
    subject: str
    details: dict[str, Any]


class AuditPage(BaseModel):
    """A page of the log, newest first; `total` counts all entries that are chosen."""

    entries: list[AuditEntry]
    total: int
    page: int
    limit: int


class Asked(BaseModel):
    """Which page of which entries."""

    model_config = ConfigDict(frozen=True)

    page: PageNumber = 1
    limit: Annotated[
        WholeNumber, Query(ge=1, le=LARGEST_LIMIT, description="Entries of a page.")
    ] = 25
    action: Annotated[Action | None, Query(description="What was done.")] = None
    actor: Annotated[str, Query(description="Who did it, exactly.")] = ""
    range: Annotated[Range | None, Query(description="UTC days, or the last N times 24 hours.")] = (
        None
    )


_EXAMPLE = {
    "entries": [
        {
            "id": 7,
            "at": "2025-01-15T10:30:00.120Z",
            "actor": "ada",
            "action": "event.delete",
            "subject": "3 events",
            "details": {"event_ids": ["evt-123", "evt-124", "evt-125"]},
        }
    ],
    "total": 1,
    "page": 1,
    "limit": 25,
}


@router.get("/audit", **documented(AuditPage, _EXAMPLE, errors=(400,)))
async def list_audit_entries(
    serving: Serving, reader: AuditReader, asked: Annotated[Asked, Depends(Asked)]
) -> Response:
    """Deletes, purges, changes of filters, merges and changes of tokens in the org unit, newest first."""
    since, until = bounds(asked.range, serving.clock())
    chosen = audit.Chosen(reader.org_unit, asked.action or "", asked.actor, since, until)
    rows: Sequence[Any] = []
    total = 0
    if not unstorable(asked.actor):
        rows, total = await audit.entries(serving.postgres, chosen, asked.page, asked.limit)
    return json(
        {
            "entries": [_entry(row) for row in rows],
            "total": total,
            "page": asked.page,
            "limit": asked.limit,
        }
    )


def _entry(row: Any) -> Mapping[str, Any]:
    return {
        "id": row["id"],
        "at": time_text(row["at"]),
        "actor": row["actor"],
        "action": row["action"],
        "subject": row["subject"],
        "details": row["details"],
    }
