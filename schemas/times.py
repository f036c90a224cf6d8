"""Times as text: RFC 3339 with offset on the way in, UTC with three decimals on the way out."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d+))?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_WRITTEN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"


def instant(text: str) -> datetime:
    """The instant in UTC, further decimals than three cut; raises ValueError."""
    found = _RFC_3339.fullmatch(text)
    if not found:
        raise ValueError("this is not an RFC 3339 time with an offset")
    day, clock, decimals, sign, hours, minutes = found.groups()
    local = datetime.fromisoformat(f"{day}T{clock}+00:00")
    part = timedelta(milliseconds=int(f"{decimals or '0'}00"[:3]))
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        return local + part - (-offset if sign == "-" else offset)
    except OverflowError as error:
        raise ValueError("the year is not 1 to 9999 in UTC") from error


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time; raises ValueError."""
    return (instant(text) - _EPOCH) // timedelta(milliseconds=1)


def _known(text: str) -> str:
    instant(text)
    return text


Timestamp = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 with offset, years 1 to 9999 in UTC."""
UtcTime = Annotated[
    str,
    StringConstraints(pattern=_WRITTEN),
    AfterValidator(_known),
    Field(json_schema_extra={"format": "date-time"}),
]
"""RFC 3339 in UTC with milliseconds, such as ``2024-05-01T12:00:00.000Z``."""
