"""How answers are written."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response

from processor.pure import timestamps


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON; numbers are those that are stored."""
    return Response(
        orjson.dumps(content),
        status,
        dict(headers or {}),
        media_type="application/json",
    )


def time_text(milliseconds: int) -> str:
    """RFC 3339 in UTC, milliseconds only where they are not zero."""
    text = timestamps.to_text(milliseconds)
    return text if milliseconds % 1000 else f"{text[:-5]}Z"


def optional_time(milliseconds: int | None) -> str | None:
    """The same, for a time there may not be."""
    return None if milliseconds is None else time_text(milliseconds)
