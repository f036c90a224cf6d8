"""Bearer tokens in Postgres: a public prefix finds the row, a hash of the whole token decides.

A token is ``ogt_PREFIX_SECRET``: 16 hex digits and 256 random bits.  It is shown once, when it is made.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from processor.io.postgres import Postgres

SCOPES = (
    "events:read",
    "events:delete",
    "ingest",
    "filters:read",
    "filters:write",
    "leads:merge",
    "audit:read",
)
LONGEST = 128
"""Characters of anything that can be a token."""
_SHAPE = re.compile(r"ogt_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


class Token(Struct, frozen=True):
    """What a bearer may do, as far as its row says."""

    prefix: str
    org_unit: str
    name: str
    scopes: frozenset[str]
    expires_at: int | None
    """Milliseconds."""
    revoked: bool


class Wanted(Struct, frozen=True):
    """A token to be made."""

    org_unit: str
    name: str
    scopes: Sequence[str]
    lasts_ms: int | None
    """None: for ever."""


async def create(postgres: Postgres, wanted: Wanted, by: str) -> str:
    """The new token, which nobody can be told again."""
    prefix = secrets.token_hex(8)
    token = f"ogt_{prefix}_{secrets.token_urlsafe(32)}"
    await postgres.execute(
        "create_token",
        prefix,
        wanted.org_unit,
        wanted.name,
        _hash(token),
        sorted(wanted.scopes),
        by,
        wanted.lasts_ms,
    )
    return token


async def every(postgres: Postgres, org_unit: str | None) -> Sequence[Any]:
    """The rows of all tokens, or those of an org unit, without their hashes."""
    return await postgres.fetch("list_tokens", org_unit)


async def revoke(postgres: Postgres, prefix: str, by: str) -> bool:
    """Whether there is such a token; one that was revoked stays so."""
    return bool(await postgres.fetch("revoke_token", prefix, by))


async def find(postgres: Postgres, token: str) -> Token | None:
    """The token's row; None for anything that is none.  How long it takes tells nothing of the secret."""
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        return None
    rows = await postgres.fetch("find_token", shape[1])
    if not rows or not hmac.compare_digest(rows[0]["hash"], _hash(token)):
        return None
    row = rows[0]
    return Token(
        shape[1],
        row["org_unit"],
        row["name"],
        frozenset(row["scopes"]),
        row["expires_at"],
        revoked=row["revoked_at"] is not None,
    )


async def used(postgres: Postgres, prefixes: Sequence[str]) -> None:
    """Notes that these have been used by now."""
    await postgres.execute("use_tokens", sorted(prefixes))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
