"""RFC 3339 text to milliseconds and back, in whole numbers, for the years 1 to 9999 (UTC)."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999
"""0001-01-01T00:00:00.000Z and 9999-12-31T23:59:59.999Z."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_DAY_MS, _HOUR_MS, _MINUTE_MS = 86_400_000, 3_600_000, 60_000
_CACHED = 4096
_HOUR, _SIXTY = "([01][0-9]|2[0-3])", "([0-5][0-9])"
_SHAPE = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt]{_HOUR}:{_SIXTY}:{_SIXTY}(?:\.([0-9]+))?"
    rf"(?:[Zz]|([+-]){_HOUR}:{_SIXTY})"
)
# The common forms are read by look-up: a cached second, and up to three decimals before "Z" or "+00:00".
_SECONDS = {f":{second:02d}": second * 1000 for second in range(60)}
_PARTS: dict[str, int] = {"": 0} | {
    f".{part:0{digits}d}": part * 10 ** (3 - digits)
    for digits in (1, 2, 3)
    for part in range(10**digits)
}
_TAILS = {part + utc: ms for part, ms in _PARTS.items() for utc in ("Z", "+00:00")}
_DECIMALS = tuple(f".{part:03d}Z" for part in range(1000))


def from_text(text: str) -> int | None:
    """Milliseconds of an RFC 3339 time with offset, further decimals cut; None for any other text."""
    try:
        return _second_of(text[:19]) + _TAILS[text[19:]]
    except KeyError:
        return _from_any(text)


def to_text(milliseconds: int) -> str:
    """RFC 3339 with three decimals and Z; between `EARLIEST` and `LATEST`."""
    return _second(milliseconds // 1000) + _DECIMALS[milliseconds % 1000]


@lru_cache(_CACHED)
def _second_of(text: str) -> int:
    return _minute(text[:16]) + _SECONDS[text[16:]]


@lru_cache(_CACHED)
def _minute(text: str) -> int:
    milliseconds = _from_any(f"{text}:00Z")
    if milliseconds is None:
        raise KeyError(text)
    return milliseconds


def _from_any(text: str) -> int | None:
    shape = _SHAPE.fullmatch(text)
    midnight = _midnight(shape[1]) if shape else None
    if shape is None or midnight is None:
        return None
    hour, minute, second, decimals, sign, *offset = shape.groups()[1:]
    utc = midnight + _ms(hour, minute) + 1000 * int(second) + int(f"{decimals or '0'}00"[:3])
    if sign:
        utc -= _ms(*offset) if sign == "+" else -_ms(*offset)
    return utc if EARLIEST <= utc <= LATEST else None


def _ms(hours: str, minutes: str) -> int:
    return int(hours) * _HOUR_MS + int(minutes) * _MINUTE_MS


@lru_cache(_CACHED)
def _midnight(day: str) -> int | None:
    """Of a day that the calendar has."""
    try:
        return (datetime.fromisoformat(f"{day}T00:00+00:00") - _EPOCH) // _DAY * _DAY_MS
    except ValueError:
        return None


@lru_cache(_CACHED)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
