"""Redis and Postgres by TLS: whom we do not trust we do not speak to, and say so in one line that names the setting.

That both work by TLS is shown with all services together (`test_tls.py`).
"""

from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import pytest

from processor.failures import StartRefused
from processor.io import redis
from processor.io.postgres import Postgres
from tests import harness
from tests.security.certificates import Certificates
from tests.security.tls_proxy import (
    Proxy,
    no_tls_of_postgres,
    port_of,
    through,
    tls_in_front_of,
    tls_of_postgres,
)

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("trusted", ["stranger", "elsewhere", "nothing"])
async def test_a_redis_that_is_not_to_be_trusted_is_refused(
    world: harness.World, certificates: Certificates, redis_proxy: Proxy, trusted: str
) -> None:
    """By an unknown authority, with the certificate of another host, or by an authority that is no file."""
    port = port_of(world.redis)
    with tls_in_front_of(port, certificates.elsewhere) as other:
        at = other.port if trusted == "elsewhere" else redis_proxy.port
        authority = {
            "stranger": certificates.stranger,
            "elsewhere": certificates.authority,
            "nothing": certificates.authority.with_name("nothing.pem"),
        }[trusted]
        with pytest.raises(StartRefused, match=r"^cannot use Redis: .*; check REDIS_URL$"):
            await redis.Server.connect(through(world.redis, at, authority))


async def test_a_redis_without_tls_is_refused_where_tls_is_wanted(
    world: harness.World, certificates: Certificates
) -> None:
    """And so is a parameter that a connection without TLS does not take: it would be believed to be by TLS."""
    plain = through(world.redis, port_of(world.redis), certificates.authority)
    with pytest.raises(StartRefused, match=r"^cannot use Redis: .*; check REDIS_URL$"):
        await redis.Server.connect(plain)
    with pytest.raises(StartRefused, match=r"^REDIS_URL has a parameter .* rediss:// alone$"):
        await redis.Server.connect(plain.replace("rediss://", "redis://"))


@pytest.mark.parametrize("trusted", ["stranger", "elsewhere", "nothing"])
async def test_a_postgres_that_is_not_to_be_trusted_is_refused(
    world: harness.World, certificates: Certificates, postgres_proxy: Proxy, trusted: str
) -> None:
    """By an unknown authority, with the certificate of another host, or by an authority that is no file."""
    with tls_of_postgres(port_of(world.postgres), certificates.elsewhere) as other:
        at = other.port if trusted == "elsewhere" else postgres_proxy.port
        authority = {
            "stranger": certificates.stranger,
            "elsewhere": certificates.authority,
            "nothing": certificates.authority.with_name("nothing.pem"),
        }[trusted]
        with pytest.raises(
            StartRefused, match=r"^cannot connect to Postgres: .*; check DATABASE_U"
        ):
            await Postgres.connect(through(world.postgres, at, authority))


async def test_a_postgres_that_declines_tls_is_refused(
    world: harness.World, certificates: Certificates
) -> None:
    """`verify-full` never goes on in the clear, whoever stands between and says that there is no TLS."""
    with no_tls_of_postgres(port_of(world.postgres)) as proxy:
        url = through(world.postgres, proxy.port, certificates.authority)
        with pytest.raises(StartRefused, match=r"rejected SSL upgrade; check DATABASE_URL$"):
            await Postgres.connect(url)
        clear = await Postgres.connect(url.replace("verify-full", "prefer"))
        await clear.close()


async def test_wrong_passwords_by_tls_are_one_line_each(
    world: harness.World, certificates: Certificates, redis_proxy: Proxy, postgres_proxy: Proxy
) -> None:
    """Each names its setting, and tells nothing of what was tried."""
    moved = replace(
        world, redis=_with_password(world.redis), postgres=_with_password(world.postgres)
    )
    with pytest.raises(StartRefused, match=r"; check REDIS_URL$") as of_redis:
        await redis.Server.connect(through(moved.redis, redis_proxy.port, certificates.authority))
    url = through(moved.postgres, postgres_proxy.port, certificates.authority)
    with pytest.raises(StartRefused, match=r"; check DATABASE_URL$") as of_postgres:
        await Postgres.connect(url)
    assert "guessed" not in f"{of_redis.value}{of_postgres.value}"


def _with_password(url: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:guessed@{place}"))
