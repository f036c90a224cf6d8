"""What a raw record says, read straight from the contract: an event, or the stages a refusal may name.

Standard library only; nothing here is shared with the program under test.  Times are milliseconds since 1970 (UTC).
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

PARSE = frozenset({"parse"})
VALIDATE = frozenset({"validate"})
EITHER = PARSE | VALIDATE
METADATA_BYTES = 102_400
METADATA_DEPTH = 32
METADATA_KEYS = 1_000
RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


class Message(NamedTuple):
    """One Kafka record; ``timestamp`` in ms, None or negative where it has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def place(self) -> tuple[str, int, int, int | None]:
        """What makes two deliveries the same message."""
        return self.topic, self.partition, self.offset, self.timestamp


@dataclass(frozen=True)
class Raw:
    """An accepted raw event."""

    org_unit: str
    id: str
    lead_id: str
    event_type: str
    metadata: dict[str, Any]
    at: int


class RefusedError(Exception):
    """The message is bad; ``stages`` are those a dead letter of it may name."""

    def __init__(self, why: str, stages: frozenset[str] = VALIDATE) -> None:
        super().__init__(why)
        self.stages = stages


@dataclass(frozen=True)
class Unkeepable:
    """A number no double and no 64-bit integer holds; harmless where it is not kept."""

    text: str


def read(message: Message, max_future_ms: int, derive: Callable[[Message], str]) -> Raw:
    """The event of a raw record.  Raises ``RefusedError``."""
    fields = loads(message.value)
    id_ = _text(fields, "id", 128, required=False)
    event_type = normalise(_required(fields, "event_type", 128))
    if not event_type:
        raise RefusedError("event_type has no letters")
    return Raw(
        org_unit=_required(fields, "org_unit", 64),
        id=derive(message) if id_ is None else id_,
        lead_id=_required(fields, "lead_id", 128),
        event_type=event_type,
        metadata=_metadata(fields.get("metadata")),
        at=_time(fields, message.timestamp, max_future_ms),
    )


def loads(value: bytes | None) -> dict[str, Any]:
    """A JSON object.  Raises ``RefusedError`` at stage parse."""
    if value is None:
        raise RefusedError("no value", PARSE)
    try:
        text = value.decode("utf-8")
        found = json.loads(text, parse_int=_integer, parse_float=_decimal, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"not JSON: {error}", PARSE) from None
    if not isinstance(found, dict):
        raise RefusedError("not an object", EITHER)
    return found


def normalise(event_type: str) -> str:
    """Title Case words; empty when nothing is left."""
    return " ".join(word.capitalize() for word in re.split(r"[\s_-]+", event_type) if word)


def milliseconds(text: str) -> int:
    """An RFC 3339 time with offset, further decimals cut.  Raises ``RefusedError``."""
    found = RFC_3339.fullmatch(text)
    if found is None:
        raise RefusedError(f"not RFC 3339: {text!r}")
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    sign, off_hour, off_minute = found[8], int(found[9] or 0), int(found[10] or 0)
    if hour > 23 or minute > 59 or second > 59 or off_hour > 23 or off_minute > 59:
        raise RefusedError(f"no such time: {text!r}")
    try:
        days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError as error:
        raise RefusedError(str(error)) from None
    offset = (off_hour * 60 + off_minute) * (-1 if sign == "-" else 1)
    seconds = days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second
    return seconds * 1_000 + int(((found[7] or "") + "000")[:3])


def _integer(text: str) -> int | Unkeepable:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        return Unkeepable(text)
    return int(text)


def _decimal(text: str) -> float | Unkeepable:
    value = float(text)
    return Unkeepable(text) if value in (float("inf"), float("-inf")) else value


def _constant(text: str) -> Any:
    raise RefusedError(f"{text} is not JSON", EITHER)


def _keepable(text: str) -> str:
    if "\x00" in text:
        raise RefusedError("NUL", EITHER)
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise RefusedError("lone surrogate", EITHER)
    return text


def _text(fields: dict[str, Any], name: str, longest: int, *, required: bool) -> str | None:
    value = fields.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise RefusedError(f"{name} is missing, no string or of a wrong length")
    return _keepable(value)


def _required(fields: dict[str, Any], name: str, longest: int) -> str:
    value = _text(fields, name, longest, required=True)
    assert value is not None
    return value


def _time(fields: dict[str, Any], record: int | None, max_future_ms: int) -> int:
    recorded = record if record is not None and record >= 0 else None
    said = fields.get("timestamp")
    if said is None:
        said = fields.get("created_at")
    if said is None:
        if recorded is None:
            raise RefusedError("no time anywhere")
        return recorded
    if not isinstance(said, str):
        raise RefusedError("timestamp is no string")
    at = milliseconds(said)
    if recorded is not None and at > recorded + max_future_ms:
        raise RefusedError("too far in the future")
    return at


def _metadata(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError("metadata is no object")
    values = list(_walk(value, 1))
    for _, inner in values:
        _keep(inner)
    if max(depth for depth, _ in values) > METADATA_DEPTH:
        raise RefusedError("metadata is too deep")
    if sum(len(inner) for _, inner in values if isinstance(inner, dict)) > METADATA_KEYS:
        raise RefusedError("metadata has too many keys")
    if len(compact(value)) > METADATA_BYTES:
        raise RefusedError("metadata is too large")
    return value


def _keep(inner: Any) -> None:
    for text in inner if isinstance(inner, dict) else [inner]:
        if isinstance(text, str):
            _keepable(text)
    if isinstance(inner, Unkeepable):
        raise RefusedError("a number that cannot be kept", EITHER)


def _walk(value: Any, depth: int) -> Iterator[tuple[int, Any]]:
    """Every value with its level; a scalar stands on the level of what holds it."""
    children: list[Any] = []
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    yield depth, value
    for child in children:
        yield from _walk(child, depth + isinstance(child, dict | list))


def compact(value: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
