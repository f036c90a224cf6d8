"""What security tests share: certificates, made once, and TLS in front of servers that have none."""

from collections.abc import Iterator

import pytest

from processor.embedded import Stack
from tests.security.certificates import Certificates, made
from tests.security.tls_proxy import Proxy, port_of, tls_in_front_of, tls_of_postgres


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of servers and authorities, in a folder of their own."""
    return made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def redis_proxy(stack: Stack, certificates: Certificates) -> Iterator[Proxy]:
    """TLS in front of Redis."""
    with tls_in_front_of(port_of(stack.redis), certificates.server) as proxy:
        yield proxy


@pytest.fixture
def postgres_proxy(stack: Stack, certificates: Certificates) -> Iterator[Proxy]:
    """TLS in front of Postgres."""
    with tls_of_postgres(port_of(stack.postgres), certificates.server) as proxy:
        yield proxy
