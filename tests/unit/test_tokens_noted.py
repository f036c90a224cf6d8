"""When tokens were used, as it is written down."""

import hashlib
from typing import Any, cast

import pytest

from processor.api.auth import Tokens
from processor.failures import Retryable

TOKEN = "ogt_" + "a" * 16 + "_" + "b" * 43


class Postgres:
    """Knows one token; may be away."""

    def __init__(self) -> None:
        self.away = False
        self.noted: list[list[str]] = []

    async def fetch(self, _name: str, prefix: str) -> list[dict[str, Any]]:
        """Its row."""
        found = {"org_unit": "acme", "name": "bob", "scopes": ["events:read"], "prefix": prefix}
        of_time = {"expires_at": None, "revoked_at": None}
        return [{**found, **of_time, "hash": hashlib.sha256(TOKEN.encode()).digest()}]

    async def execute(self, _name: str, prefixes: list[str]) -> None:
        """Notes a use."""
        if self.away:
            raise Retryable("postgres", "no answer")
        self.noted.append(prefixes)


async def test_a_use_is_noted_once_whenever_postgres_takes_it() -> None:
    """What could not be written is written later."""
    postgres = Postgres()
    tokens = Tokens(cast("Any", postgres), lambda: 10**12)
    assert await tokens.principal(TOKEN)
    postgres.away = True
    with pytest.raises(Retryable):
        await tokens.note_use()
    postgres.away = False
    await tokens.note_use()
    await tokens.note_use()
    assert [len(prefixes) for prefixes in postgres.noted] == [1]
