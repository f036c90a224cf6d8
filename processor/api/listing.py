"""What a listing of events may be asked: the query parameters of ``GET /events`` and ``GET /events/{lead_id}``."""

import re
from typing import Annotated, Literal, TypeAlias

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from processor.io.listing import EVERY_REASON, REASONS, Chosen
from schemas import stored_name

DAY_MS = 86_400_000
LARGEST_LIMIT = 100
LARGEST_PAGE = 2**63 - 1
_DAYS = {"last_7d": 7, "last_30d": 30, "last_90d": 90}

Range: TypeAlias = Literal["today", "yesterday", "last_7d", "last_30d", "last_90d"]
ReasonQuery: TypeAlias = Literal["none", "any", "inorganic", "inorganic_grouped", "metadata_filter"]


def _digits(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise PydanticCustomError("digits", "Input should be a whole number")
    return value


WholeNumber: TypeAlias = Annotated[int, BeforeValidator(_digits)]
"""Of digits alone: pydantic takes ``1_0`` for ten and ``1.0`` for one."""
PageNumber: TypeAlias = Annotated[
    WholeNumber, Query(ge=1, le=LARGEST_PAGE, description="From 1; a page past the end is empty.")
]


class Choice(BaseModel):
    """Which events."""

    model_config = ConfigDict(frozen=True)

    event_type: Annotated[str, Query(description="Any spelling of the type.")] = ""
    range: Annotated[
        Range | None,
        Query(description="By created_at: UTC days, or the last N times 24 hours."),
    ] = None
    suppression_reason: Annotated[
        ReasonQuery | None, Query(description="`none`: organic; `any`: suppressed.")
    ] = None


class Asked(Choice):
    """Which page of which events."""

    page: PageNumber = 1
    limit: Annotated[
        WholeNumber, Query(ge=1, le=LARGEST_LIMIT, description="Events of a page.")
    ] = 25


def chosen(asked: Choice, org_unit: str, now: int) -> Chosen | None:
    """What that selects at a time (ms); None where nothing can be."""
    event_type = stored_name(asked.event_type)
    if "\0" in event_type or (asked.event_type and not event_type):
        return None
    since, until = bounds(asked.range, now)
    return Chosen(org_unit, event_type, _reasons(asked.suppression_reason), since, until)


def bounds(asked: Range | None, now: int) -> tuple[int | None, int | None]:
    """From when (ms, included) until when (excluded) a range goes at a time; None: without end."""
    today = now - now % DAY_MS
    match asked:
        case None:
            return None, None
        case "today":
            return today, today + DAY_MS
        case "yesterday":
            return today - DAY_MS, today
        case _:
            return now - _DAYS[asked] * DAY_MS, None


def _reasons(asked: ReasonQuery | None) -> int:
    match asked:
        case None:
            return EVERY_REASON
        case "any":
            return EVERY_REASON - 1
        case _:
            return 1 << REASONS.index(asked)
