"""What people send who mean no good, and how the answers of the API and the tables of others are looked at afterwards."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx

from tests.api.client import Api

TEXTS: Sequence[str] = (
    "'",
    '"',
    "''; DROP TABLE events; --",
    "' OR '1'='1",
    "x' UNION SELECT hash FROM tokens --",
    "$$; SELECT pg_sleep(9); $$",
    "$1",
    "%",
    "_",
    "%s%(x)s{0}{x}",
    "\\",
    "\\'; --",
    "{a,b}",
    "{}[]()",
    "$.a[*] ? (@ == 1)",
    "a->>'b'",
    "#>>'{a}'",
    "a.b",
    "‘’“”ʼ＇",
    "\u202edrow\u200b\ufeff",
    "é\U0001f4a3ß",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
    "\r\nSet-Cookie: a=b\r\n\r\n",
    "\x1b[31m\x07\x7f",
    "-1",
    "1e999",
    "NaN",
    "null",
    "9" * 60,
)
"""Every one of them can be stored: it is to mean itself."""
UNSTORABLE: Sequence[str] = ("\0", "a\0b", "\ud800", "x\udfff")
"""No table can hold these."""
VALUES: Sequence[Any] = (
    *UNSTORABLE,
    "",
    "x" * 5_000,
    0,
    -1,
    10**400,
    1e308,
    True,
    None,
    [],
    [[[]]],
    {},
    {"$ne": None},
    {"a'b": {"$$": "\0"}},
)
"""What a body may hold in place of a text."""


@dataclass(frozen=True)
class Ask:
    """A request of an operation; `@` stands for what is asked about, alone or inside of a text."""

    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def about(self, what: str) -> "Ask":
        """The same, asked about this."""
        return Ask(_about(self.query, what), _about(self.body, what), _about(self.headers, what))


def _about(value: Any, what: str) -> Any:
    if isinstance(value, str):
        return value.replace("@", what)
    if isinstance(value, Mapping):
        return {key: _about(inner, what) for key, inner in value.items()}
    return [_about(one, what) for one in value] if isinstance(value, list) else value


async def described(api: Api) -> Mapping[str, Any]:
    """Every path with its operations, as the API tells of itself."""
    answer = await api.bearing(None).get("/openapi.json")
    paths: Mapping[str, Any] = answer.json()["paths"]
    return paths


def filled(path: str, ids: Mapping[str, str]) -> str:
    """An address whose parameters have these values, whatever is in them."""
    return re.sub(r"{(\w+)}", lambda found: encoded(ids[found[1]]), path)


def encoded(text: str) -> str:
    """As part of an address; what is no UTF-8 is sent all the same."""
    return quote(text.encode(errors="surrogatepass"), safe="")


def refused_or_answered(answer: httpx.Response) -> None:
    """It is an answer of the contract, and no defect."""
    assert answer.status_code < 500, (answer.request.url, answer.request.content, answer.text)
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert [*answer.json()] == ["error"], answer.text
        assert [*answer.json()["error"]] == ["code", "message"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a body that holds nothing else, to the containers, and to the whole."""
    yield path
    if isinstance(value, dict | list):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, inner in steps:
            yield from leaves(inner, (*path, step))


def with_at(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The body with something else in a place."""
    if not path:
        return new
    step, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[step] = with_at(copy[step], tuple(rest), new)
    return copy


async def everything_of(
    database: asyncpg.Pool | asyncpg.Connection, org_unit: str
) -> Mapping[str, Sequence[str]]:
    """Every row of every table that an org unit has, as text; a table that is gone is missing."""
    tables = await database.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_unit'"
        " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    found = {}
    for table in tables:
        rows = f"SELECT t::text FROM {table['name']} t WHERE org_unit = $1 ORDER BY 1"
        found[table["name"]] = [row[0] for row in await database.fetch(rows, org_unit)]
    return found
