"""Bad messages of every kind, and good ones that only look bad.  Each is a change to a good event, or bytes alone."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
Value: TypeAlias = bytes | None


def dumps(event: Any) -> bytes:
    """JSON, not ASCII only."""
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _with(**fields: Any) -> Callable[[Event], Value]:
    return lambda event: dumps(event | fields)


def _without(name: str) -> Callable[[Event], Value]:
    return lambda event: dumps({k: v for k, v in event.items() if k != name})


def _raw(value: Value) -> Callable[[Event], Value]:
    return lambda _: value


def _spliced(name: str, text: str) -> Callable[[Event], Value]:
    """The event with one more member, its value given as JSON text."""
    return lambda event: dumps(event)[:-1] + f', "{name}": {text}}}'.encode()


def _nested(levels: int) -> Any:
    value: Any = 1
    for n in range(levels):
        value = {"a": value} if n % 2 else [value]
    return value


def _sized(size: int) -> Event:
    """Metadata of exactly ``size`` bytes as compact JSON."""
    return {"k": "x" * (size - len('{"k":""}'))}


def _keys(count: int) -> Event:
    return {"in": {f"k{n}": n for n in range(count - 1)}}


# Metadata's own level is the first, so the value of a key stands on the second.
BAD: dict[str, Callable[[Event], Value]] = {
    "null value": _raw(None),
    "empty": _raw(b""),
    "not JSON": _raw(b"{"),
    "not UTF-8": _raw(b'{"org_unit": "\xff"}'),
    "UTF-16": lambda event: json.dumps(event).encode("utf-16"),
    "byte order mark": lambda event: b"\xef\xbb\xbf" + dumps(event),
    "two values": lambda event: dumps(event) * 2,
    "trailing comma": lambda event: dumps(event)[:-1] + b",}",
    "array": lambda event: dumps([event]),
    "string": _raw(b'"event"'),
    "number": _raw(b"5"),
    "JSON null": _raw(b"null"),
    "JSON bomb": _raw(b"[" * 100_000),
    "binary": _raw(bytes(range(256))),
    "control character": lambda event: dumps(event)[:-1] + b', "x": "\x01"}',
    "no org unit": _without("org_unit"),
    "no lead": _without("lead_id"),
    "no type": _without("event_type"),
    "null lead": _with(lead_id=None),
    "empty org unit": _with(org_unit=""),
    "long org unit": _with(org_unit="o" * 65),
    "long lead": _with(lead_id="l" * 129),
    "long type": _with(event_type="t" * 129),
    "long id": _with(id="i" * 129),
    "empty id": _with(id=""),
    "id a number": _with(id=5),
    "lead a number": _with(lead_id=17),
    "org unit a list": _with(org_unit=["acme"]),
    "type a boolean": _with(event_type=True),
    "type of nothing": _with(event_type=" _-\t"),
    "metadata a list": _with(metadata=[1]),
    "metadata a string": _with(metadata="{}"),
    "metadata too large": _with(metadata=_sized(102_401)),
    "metadata too deep": _with(metadata={"a": _nested(32)}),
    "too many keys": _with(metadata=_keys(1_001)),
    "NUL in metadata": _with(metadata={"a": ["b\x00"]}),
    "NUL in a key": _with(metadata={"a": {"\x00": 1}}),
    "NUL in the lead": _with(lead_id="a\x00b"),
    "NUL in the id": _with(id="\x00"),
    "lone surrogate in metadata": _spliced("metadata", r'{"a": "\ud800"}'),
    "lone surrogate in the lead": _spliced("lead_id", r'"\udfff"'),
    "NaN": _spliced("metadata", '{"a": NaN}'),
    "infinity": _spliced("metadata", '{"a": -Infinity}'),
    "integer above 64 bits": _spliced("metadata", '{"a": 18446744073709551616}'),
    "integer below 63 bits": _spliced("metadata", '{"a": -9223372036854775809}'),
    "integer of many digits": _spliced("metadata", '{"a": 1' + "0" * 5_000 + "}"),
    "decimal overflow": _spliced("metadata", '{"a": [1e400]}'),
    "timestamp a number": _with(timestamp=1_700_000_000_000),
    "timestamp without offset": _with(timestamp="2024-05-01T10:00:00"),
    "timestamp a date": _with(timestamp="2024-05-01"),
    "no such day": _with(timestamp="2023-02-29T10:00:00Z"),
    "no such hour": _with(timestamp="2024-05-01T24:00:00Z"),
    "year zero": _with(timestamp="0000-05-01T10:00:00Z"),
    "empty timestamp": _with(timestamp=""),
    "created_at a number": lambda event: dumps(
        {k: v for k, v in event.items() if k != "timestamp"} | {"created_at": 5}
    ),
}

ODD_BUT_GOOD: dict[str, Callable[[Event], Value]] = {
    "largest metadata": _with(metadata=_sized(102_400)),
    "deepest metadata": _with(metadata={"a": _nested(31)}),
    "most keys": _with(metadata=_keys(1_000)),
    "null metadata": _with(metadata=None),
    "integers at the edges": _spliced(
        "metadata", '{"a": [-9223372036854775808, 18446744073709551615, -0, 0.1, 1e-400, 1E5]}'
    ),
    "the last of two keys wins": _spliced("metadata", '{"a": 1, "a": {"b": 2, "b": 3}}'),
    "escapes": _spliced("metadata", r'{"\u0061": "\ud83d\ude00 \"\\\/\b\f\n\r\t\u007f"}'),
    "unknown fields": _with(score=5, suppression_reason="inorganic", source_offset=[None]),
    "refused things in unknown fields": _spliced("unknown", r'["\u0000", "\ud800", 1e400]'),
    "a large integer in an unknown field": _spliced("unknown", "18446744073709551616"),
    "depth in an unknown field": _spliced("unknown", "[" * 60 + "]" * 60),
    "white space around": lambda event: b" \n\t" + dumps(event) + b"\r\n ",
    "lead of 128 code points": _with(lead_id="😀" * 128),
    "not trimmed": _with(lead_id=" lead "),
    "type with accents": _with(event_type="ÉCRAN_vu"),
    "small letters in the time": _with(timestamp="2024-05-01t10:00:00.9999z"),
    "offset": _with(timestamp="2024-05-01T10:00:00.5-23:59"),
    "long before 1970": _with(timestamp="0001-01-02T00:00:00.001Z"),
    "just before 1970": _with(timestamp="1969-12-31T23:59:59.999Z"),
    "leap day": _with(timestamp="2024-02-29T00:00:00+00:00"),
}
