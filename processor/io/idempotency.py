"""`Idempotency-Key`: what is published under a key is published once and answered alike for 24 h, whichever API process is asked.

A key is claimed before anything is published, with the ids it will have and the timestamp of its records, and done when Kafka has
acknowledged.  Meanwhile its owner holds a lease, not a connection, and renews it: the claim of one that died is taken over
`LEASE_MS` later and published again, the very same records.  Anything is published twice only so, and where a request was told that
it failed although Kafka had it.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import astuple

from processor.failures import Failure, Retryable
from processor.io.postgres import QUERIES, Connection, Postgres

LEASE_MS = 3_000
RENEWED_S = 1.0
PATIENCE_S = 10.0
"""How long a request takes at most; it may have to wait for another one that publishes under its key."""
_PAUSES_S = (0.02, 0.05, 0.1, 0.25)

Publish: TypeAlias = Callable[[Sequence[str], int], Awaitable[None]]
"""Publishes with these ids and this record timestamp (ms); raises a `Failure` where that is not known to have succeeded."""


class Named(Struct, frozen=True):
    """A request with a key."""

    org_unit: str
    key: str
    body_hash: bytes


class Claim(Struct, frozen=True):
    """What is to be published under the key, unless it has been claimed before: then with the ids and the time of that."""

    request: Named
    ids: Sequence[str]
    accepted_at: int
    """Milliseconds, by the clock of the API: it decides what is older than 24 h."""


class Taken(Struct, frozen=True):
    """Another body has been sent under the key."""


class _Ours(Struct, frozen=True):
    ids: Sequence[str]
    at: int


class _Busy(Struct, frozen=True):
    """The key has no answer yet."""


def named(org_unit: str, key: str, body: bytes) -> Named:
    """Bodies are the same where every byte is."""
    return Named(org_unit, key, hashlib.sha256(body).digest())


async def known(postgres: Postgres, request: Named, now: int) -> Sequence[str] | Taken | None:
    """The answer of the last 24 h, where there is one: whatever has become of Kafka, settings and limits since."""
    async with postgres.of_org_unit(request.org_unit) as connection:
        found = await _found(connection, request, now)
    return None if isinstance(found, _Busy) else found


async def once(postgres: Postgres, claim: Claim, publish: Publish) -> Sequence[str] | Taken:
    """The ids of the key, after they have been published: by this call, at the same time, or before.

    Raises what `publish` raises, after which the key can be tried again, and `Retryable`, at the latest after `PATIENCE_S`.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _once(postgres, claim, publish)
    except TimeoutError as error:
        raise Retryable("kafka", f"nothing is known to be published in {PATIENCE_S} s") from error


async def forget(postgres: Postgres) -> None:
    """Removes what is older than 24 h, of every org unit.  Raises `Retryable`."""
    await postgres.execute("forget_keys")


async def _once(postgres: Postgres, claim: Claim, publish: Publish) -> Sequence[str] | Taken:
    pauses, lease = iter(_PAUSES_S), secrets.token_hex(16)
    while True:
        claimed = await _claimed(postgres, claim, lease)
        if isinstance(claimed, _Ours):
            held = _Held(postgres, claim.request, lease)
            async with held.released_on_failure(), held.renewed():
                await publish(claimed.ids, claimed.at)
                await held.finish()
            return claimed.ids
        if not isinstance(claimed, _Busy):
            return claimed
        await asyncio.sleep(next(pauses, _PAUSES_S[-1]))


async def _claimed(
    postgres: Postgres, claim: Claim, lease: str
) -> "_Ours | Sequence[str] | Taken | _Busy":
    request, at = claim.request, claim.accepted_at
    async with postgres.of_org_unit(request.org_unit) as connection:
        row = await connection.fetchrow(
            QUERIES["claim_key"], *astuple(request), at, list(claim.ids), lease, LEASE_MS
        )
        if row is not None:
            return _Ours(row["ids"], row["claimed_at"])
        return await _found(connection, request, at)


async def _found(connection: Connection, request: Named, now: int) -> Sequence[str] | Taken | _Busy:
    row = await connection.fetchrow(QUERIES["find_key"], *astuple(request), now)
    if row is None:
        return _Busy()  # nobody's yet, or forgotten in this moment
    if not row["same_body"]:
        return Taken()
    ids: Sequence[str] = row["ids"]
    return ids if row["done"] else _Busy()


class _Held(Struct, frozen=True):
    """A claim while it is ours."""

    postgres: Postgres
    request: Named
    lease: str

    @asynccontextmanager
    async def released_on_failure(self) -> AsyncIterator[None]:
        """The next one need not wait until the lease runs out."""
        try:
            yield
        except Failure:
            with contextlib.suppress(Retryable):  # it runs out by itself
                await self._run("release_key")
            raise

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """The lease lasts as long as this."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def finish(self) -> None:
        """From here on the key has its answer."""
        await self._run("finish_key")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_S)
            with contextlib.suppress(Retryable):  # another one may publish meanwhile: the same
                await self._run("renew_key", LEASE_MS)

    async def _run(self, statement: str, *more: object) -> None:
        org_unit, key = self.request.org_unit, self.request.key
        async with self.postgres.of_org_unit(org_unit) as connection:
            await connection.execute(QUERIES[statement], org_unit, key, self.lease, *more)
