"""The URL of another database on the same server is as its driver reads it, whatever form the server's has."""

import pytest
from redis.asyncio import from_url

from processor.io.sandbox import database_at, redis_at


@pytest.mark.parametrize(
    ("server", "at"),
    [
        ("redis://h:6379", "redis://h:6379/3"),
        ("redis://:secret@h:6379/0", "redis://:secret@h:6379/3"),
        ("redis://h:6379?db=0", "redis://h:6379/3"),
        ("rediss://h/1?db=0&ssl_ca_certs=%2Fa%2Fca.pem", "rediss://h/3?ssl_ca_certs=%2Fa%2Fca.pem"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=3"),
        ("unix://:secret@/run/redis.sock?db=0", "unix://:secret@/run/redis.sock?db=3"),
    ],
)
def test_another_logical_database_is_the_one_that_redis_py_selects(server: str, at: str) -> None:
    """Its query wins over its path, and the path of a socket is a file."""
    assert redis_at(server, 3) == at
    assert from_url(at).connection_pool.connection_kwargs["db"] == 3
    path = from_url(at).connection_pool.connection_kwargs.get("path")
    assert path == ("/run/redis.sock" if server.startswith("unix") else None)


@pytest.mark.parametrize(
    ("server", "at"),
    [
        ("postgresql://u:p@h:5432/postgres", "postgresql://u:p@h:5432/d"),
        ("postgresql://h", "postgresql://h/d"),
        ("postgresql://h/x?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("postgresql:///postgres?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
    ],
)
def test_another_database_keeps_all_else_of_the_url(server: str, at: str) -> None:
    """Two slashes stand where there is no host, too."""
    assert database_at(server, "d") == at
