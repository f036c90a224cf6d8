"""The audit log: who did what to what, and when.  What writes it does so in the transaction of the deed itself."""

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import Struct

from processor.io.postgres import Postgres
from processor.io.postgres import page as postgres_page

LARGEST_OFFSET = 2**62
_TEXT_PART = 8
"""Of a number with an exponent Postgres writes all digits: so many bytes of its texts cost as much as one that is answered."""


class Chosen(Struct, frozen=True):
    """Which entries of an org unit are listed."""

    org_unit: str
    action: str = ""
    """Empty: every action."""
    actor: str = ""
    """Empty: whoever it was."""
    since: int | None = None
    """Then or later, ms."""
    until: int | None = None
    """Before, ms."""


async def entries(
    postgres: Postgres, chosen: Chosen, page: int, limit: int
) -> tuple[Sequence[Any], int]:
    """Rows of id, at, actor, action, subject, details, newest first, and how many there are in all; pages count from 1.

    Raises `Retryable`, and `TooMuch` for a page that is too large.
    """
    offset = min((page - 1) * limit, LARGEST_OFFSET)
    async with postgres.of_org_unit(chosen.org_unit) as connection:
        rows = await postgres_page(
            connection,
            "audit_page",
            _size,
            chosen.org_unit,
            chosen.action,
            chosen.actor,
            chosen.since,
            chosen.until,
            offset,
            limit,
        )
    return [row for row in rows if row["id"] is not None], rows[0]["total"]


def _size(row: Any) -> int:
    """Bytes of the details as they are answered, and no fewer than it costs to read them."""
    if row["id"] is None:
        return 0
    text: int = row["size"]
    return max(len(orjson.dumps(row["details"])), text // _TEXT_PART)
