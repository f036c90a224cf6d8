"""What security tests share: certificates, made once, and TLS in front of servers that have none."""

from collections.abc import AsyncIterator

import psutil
import pytest

from processor.embedded import Stack
from tests.harness import until
from tests.security.certificates import Certificates, made
from tests.security.tls_proxy import Proxy, port_of, tls_in_front_of, tls_of_postgres


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of servers and authorities, in a folder of their own."""
    return made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def redis_proxy(stack: Stack, certificates: Certificates) -> AsyncIterator[Proxy]:
    """TLS in front of Redis."""
    with tls_in_front_of(port_of(stack.redis), certificates.server) as proxy:
        yield proxy
        await _left(proxy)


@pytest.fixture
async def postgres_proxy(stack: Stack, certificates: Certificates) -> AsyncIterator[Proxy]:
    """TLS in front of Postgres."""
    with tls_of_postgres(port_of(stack.postgres), certificates.server) as proxy:
        yield proxy
        await _left(proxy)


async def _left(proxy: Proxy) -> None:
    """Returns once this process has closed its last connection to it: a driver says farewell by TLS after its call has returned."""

    def none() -> bool:
        peers = [one.raddr for one in psutil.Process().net_connections("tcp")]
        return not any(peer and peer.port == proxy.port for peer in peers)

    await until(none)
