"""Who asks: the bearer token of a request, looked up at most every few seconds.

The org unit of a request comes from its token alone.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from msgspec import Struct

from processor.api.errors import Refused
from processor.api.held import ORG_UNIT
from processor.io.clock import Clock
from processor.io.postgres import Postgres
from processor.io.tokens import LONGEST, Token, find, used

BELIEVED_MS = 3_000
"""A token that was revoked is refused after this at the latest."""
USE_NOTED_MS = 60_000
_MOST = 10_000
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="processor"'}
_documented = HTTPBearer(auto_error=False, description="A token of `processor tokens create`.")


class Principal(Struct, frozen=True):
    """The bearer of a token in force."""

    org_unit: str
    name: str
    scopes: frozenset[str]
    token: str
    """What it showed; never logged."""
    expires_at: int | None


class Tokens:
    """Tokens as they were found, believed for `BELIEVED_MS`."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self._postgres = postgres
        self._clock = clock
        self._found: dict[str, tuple[Token, int]] = {}
        self._noted: dict[str, int] = {}
        self._unnoted: set[str] = set()

    async def principal(self, token: str) -> Principal | None:
        """Whose token it is; None unless it is in force.  Raises `Retryable`."""
        now = self._clock()
        row = await self._row(token, now)
        if row is None or row.revoked or (row.expires_at is not None and row.expires_at <= now):
            return None
        if now - self._noted.get(row.prefix, 0) > USE_NOTED_MS:
            self._noted[row.prefix] = now
            self._unnoted.add(row.prefix)
        return Principal(row.org_unit, row.name, row.scopes, token, row.expires_at)

    async def note_use(self) -> None:
        """Writes down which tokens were used since the last call.  Raises `Retryable`."""
        if self._unnoted:
            prefixes = list(self._unnoted)
            await used(self._postgres, prefixes)
            self._unnoted.difference_update(prefixes)

    async def _row(self, token: str, now: int) -> Token | None:
        if len(token) > LONGEST:
            return None
        known = self._found.get(token)
        if known and 0 <= now - known[1] < BELIEVED_MS:
            return known[0]
        row = await find(self._postgres, token)
        self._found.pop(token, None)
        if (
            row is not None
        ):  # what is no token is not remembered: guesses cost a look each, and no memory
            while len(self._found) >= _MOST:
                self._found.pop(next(iter(self._found)))
            self._found[token] = row, now
        return row


def unauthorized() -> Refused:
    """No token, or none that is in force."""
    return Refused(401, "Check authentication token", _CHALLENGE)


def bearer(request: Request) -> str:
    """What the request shows; raises `Refused`."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthorized()
    return token.strip()


def requires(scope: str) -> Callable[[Request], Awaitable[Principal]]:
    """The principal of a request, where its token has a scope."""

    async def principal(
        request: Request, _: Annotated[object, Depends(_documented)] = None
    ) -> Principal:
        tokens: Tokens = request.app.state.services.tokens
        found = await tokens.principal(bearer(request))
        if found is None:
            raise unauthorized()
        if scope not in found.scopes:
            raise Refused(403, f"The token lacks the scope {scope}")
        request.scope["state"][ORG_UNIT] = found.org_unit
        return found

    return principal


EventsReader: TypeAlias = Annotated[Principal, Depends(requires("events:read"))]
EventsDeleter: TypeAlias = Annotated[Principal, Depends(requires("events:delete"))]
Ingester: TypeAlias = Annotated[Principal, Depends(requires("ingest"))]
FiltersReader: TypeAlias = Annotated[Principal, Depends(requires("filters:read"))]
FiltersWriter: TypeAlias = Annotated[Principal, Depends(requires("filters:write"))]
LeadsMerger: TypeAlias = Annotated[Principal, Depends(requires("leads:merge"))]
AuditReader: TypeAlias = Annotated[Principal, Depends(requires("audit:read"))]
