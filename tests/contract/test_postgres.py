"""The pool of connections, and what it does while the server is away."""

from urllib.parse import urlsplit

import pytest

from processor.failures import Retryable
from processor.io.postgres import Postgres
from tests.faults.proxy import proxied

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
