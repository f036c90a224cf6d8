"""RFC 3339 text to milliseconds and back, in whole numbers, for the years 1 to 9999 (UTC)."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999
"""0001-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_MS = 60_000
_CACHED = 4096
_SHAPE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
# The common forms are read by look-up: a cached minute, ":SS", and up to three decimals before "Z".
_SECONDS = {f":{second:02d}": second * 1000 for second in range(60)}
_TAILS: dict[str, int] = {"Z": 0} | {
    f".{part:0{digits}d}Z": part * 10 ** (3 - digits)
    for digits in (1, 2, 3)
    for part in range(10**digits)
}
_DECIMALS = tuple(f".{part:03d}Z" for part in range(1000))


def from_text(text: str) -> int | None:
    """Milliseconds of an RFC 3339 time with offset, further decimals cut; None for any other text."""
    try:
        return _minute(text[:16]) + _SECONDS[text[16:19]] + _TAILS[text[19:]]
    except KeyError:
        return _from_any(text)


def to_text(milliseconds: int) -> str:
    """RFC 3339 with three decimals and Z; between `EARLIEST` and `LATEST`."""
    return _second(milliseconds // 1000) + _DECIMALS[milliseconds % 1000]


@lru_cache(_CACHED)
def _minute(text: str) -> int:
    milliseconds = _from_any(f"{text}:00Z")
    if milliseconds is None:
        raise KeyError(text)
    return milliseconds


def _from_any(text: str) -> int | None:
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return None
    day, clock, decimals, sign, hours, minutes = shape.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock}+00:00")
    except ValueError:
        return None
    whole: int = (local - _EPOCH) // timedelta(milliseconds=1)
    offset = (int(hours) * 60 + int(minutes)) * _MINUTE_MS if sign else 0
    utc = whole + int(f"{decimals or '0'}00"[:3]) - (-offset if sign == "-" else offset)
    return utc if EARLIEST <= utc <= LATEST else None


@lru_cache(_CACHED)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
