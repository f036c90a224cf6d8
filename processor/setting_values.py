"""What the text of a setting may be, kind by kind; of anything else each raises ValueError.

Durations are milliseconds on this side.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PORTS = 65_536
_LONGEST_MS = 3_650 * UNITS_MS["d"]
_HEAVIEST = 1_000_000
DURATION = "a whole number with ms, s, m, h or d, such as 90s, 15m or 1h, at most 3650d"


def duration_ms(text: str) -> int:
    """Milliseconds of ``500ms``, ``90s``, ``15m``, ``1h``, ``7d``; raises ValueError otherwise."""
    found = re.fullmatch(r"([0-9]{1,12})(ms|s|m|h|d)", text)
    ms = int(found[1]) * UNITS_MS[found[2]] if found else -1
    if not 0 <= ms <= _LONGEST_MS:
        raise ValueError(DURATION)
    return ms


def _duration(value: object) -> object:
    return duration_ms(value) if isinstance(value, str) else value


def _digits(text: str) -> str:
    """`text`, which is digits alone: pydantic takes ``1_0`` for ten and ``1.0`` for one."""
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(text)
    return text


def _host(text: str) -> str:
    """`text`, where it can be looked up; raises ValueError for ``a..b``, as the lookup would in the midst of a driver."""
    text.encode("idna")
    return text


def _servers(text: str) -> str:
    for server in text.split(","):
        found = re.fullmatch(r"\s*(\[[0-9a-fA-F:.]+\]|[^\s:,/]+):([0-9]{1,5})\s*", server)
        if not found or not 0 < int(found[2]) < _PORTS:
            raise ValueError(server)
        _host(found[1])
    return text


def redis_urls(text: str) -> list[str]:
    """The URL of each server that a Redis URL names: after the last @, more than one is separated by commas."""
    parts = urlsplit(text)
    login, at, servers = parts.netloc.rpartition("@")
    if "," not in servers:
        return [text]
    return [
        urlunsplit(parts._replace(netloc=f"{login}{at}{server.strip()}"))
        for server in servers.split(",")
    ]


def _url(schemes: set[str], text: str) -> SplitResult:
    parts = urlsplit(text)
    servers = parts.netloc.rpartition("@")[2].split(",")
    ports = [urlsplit(f"//{server}").port for server in servers]  # raises where one is no port
    # Of a password that is not quoted, or not in its place, some would be shown as an address.
    strange = parts.fragment or "@" in parts.path + parts.query or "://" not in text
    if parts.scheme not in schemes or strange or 0 in ports:
        raise ValueError(text)
    return parts


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _redis_url(value: object) -> object:
    urls = redis_urls(_text(value))
    for url in urls:
        parts = _url({"redis", "rediss", "unix"}, url)
        if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+", parts.path):
            raise ValueError(parts.path)  # the client would take database 0
        if len(urls) > 1 and not parts.hostname:
            raise ValueError(url)
        _host(parts.hostname or "")
    return value


def _database_url(value: object) -> object:
    _url({"postgres", "postgresql"}, _text(value))
    return value


def _type(text: str) -> str:
    from schemas.names import normalise_event_type  # noqa: PLC0415 - commands without event types load no schemas

    return normalise_event_type(text)


def _types(text: str) -> frozenset[str]:
    types = {_type(one) for one in text.split(",")}
    if "" in types:
        raise ValueError(text)
    return frozenset(types)


def _weights(text: str) -> Mapping[str, float]:
    pairs = [one.rpartition("=") for one in text.split(",")]
    if any("_" in weight for _, _, weight in pairs):  # for Python, 1_0 is ten
        raise ValueError(text)
    weights = {_type(name): float(weight) for name, _, weight in pairs}
    if len(weights) < len(pairs) or "" in weights:
        raise ValueError(text)
    if not all(0 <= weight <= _HEAVIEST for weight in weights.values()):
        raise ValueError(text)
    return weights


def _of_text(parse: Callable[[str], object]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


Servers = Annotated[str, BeforeValidator(_servers)]
Topic = Annotated[str, Field(pattern=r"^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}\Z")]
DurationMs = Annotated[int, BeforeValidator(_duration)]
WholeNumber = Annotated[int, _of_text(_digits)]
Port = Annotated[WholeNumber, Field(ge=1, lt=_PORTS)]
Host = Annotated[str, BeforeValidator(_host)]
RedisUrl = Annotated[SecretStr, BeforeValidator(_redis_url)]
DatabaseUrl = Annotated[SecretStr, BeforeValidator(_database_url)]

Types = Annotated[frozenset[str], NoDecode, _of_text(_types)]
Weights = Annotated[Mapping[str, float], NoDecode, _of_text(_weights)]

TOPIC = "1 to 249 letters, digits, dots, _ and -"
PORT = "a port from 1 to 65535"
FILE = "the path of a file that can be read"
