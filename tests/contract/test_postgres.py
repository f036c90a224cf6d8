"""The pool of connections, what it does while the server is away, and how long it lets others wait."""

from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from processor.failures import Retryable
from processor.io.postgres import Postgres
from tests.faults.proxy import proxied
from tests.harness import until

pytestmark = pytest.mark.contract


async def test_of_a_server_that_is_away_only_calls_are_told(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each raises; the driver does nothing beside them, and logs nothing of its own."""
    url = urlsplit(database)
    async with proxied(url.port or 5432) as proxy:
        behind = url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}")
        postgres = await Postgres.connect(behind.geturl(), size=2)
        proxy.refuse()
        for _ in range(5):
            with pytest.raises(Retryable):
                await postgres.answers()
        assert [one.getMessage() for one in caplog.records if one.name.startswith("asyncpg")] == []
        proxy.accept()
        await postgres.answers()
        await postgres.close()


@pytest.fixture
async def postgres(database: str) -> AsyncIterator[Postgres]:
    """On the test's database."""
    postgres = await Postgres.connect(database, size=2)
    yield postgres
    await postgres.close()


@pytest.mark.parametrize("limit", ["transaction_timeout", "idle_in_transaction_session_timeout"])
async def test_who_falls_silent_in_a_transaction_keeps_its_locks_only_so_long(
    postgres: Postgres, limit: str
) -> None:
    """In the midst of a call, whose next word the server waits for, too.  What comes after is told as what another try may mend."""
    await postgres.execute("open_org_units", ["acme"])
    lock = "SELECT FROM engaged_org_units FOR UPDATE NOWAIT"

    async def free() -> bool:
        with suppress(Retryable):
            async with postgres.transaction() as other:
                await other.execute(lock)
                return True
        return False

    async def silent() -> None:
        async with postgres.transaction(long=True) as connection:  # whose limit does not run yet
            await connection.execute(lock)
            seen.append(await free())
            await connection.execute(f"SET LOCAL {limit} = '1s'")
            if limit == "transaction_timeout":
                await connection.prepare("SELECT $1::integer")
            seen.append(await until(free))
            await connection.execute(lock)

    seen: list[bool] = []
    with pytest.raises(Retryable):
        await silent()
    assert seen == [False, True]


async def test_a_transaction_is_limited_but_for_long_reads(postgres: Postgres) -> None:
    """Whatever pooled connection it has."""
    for long, limit in ((False, "1min"), (True, "0"), (False, "1min")):
        async with postgres.transaction(long=long) as connection:
            assert await connection.fetchval("SHOW transaction_timeout") == limit
