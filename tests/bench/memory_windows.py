"""What Valkey holds of each window, beside what is promised."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import asyncpg
import redis

from tests.bench.memory_rules import most_members

LATENESS_MS = 3_600_000
"""As the worker has it by default."""
_FILTERS = (
    "SELECT window_revision, event_type, threshold, window_ms FROM filters WHERE kind = 'velocity'"
)
_CHUNK = 1_000


class Kind(NamedTuple):
    """Windows that are alike."""

    event_type: str
    threshold: int
    window_ms: int

    @property
    def most(self) -> int:
        """Members that are promised at most."""
        return most_members(self.threshold, self.window_ms, LATENESS_MS)


class Held(NamedTuple):
    """What the windows of a kind hold."""

    kind: Kind
    windows: int
    members: float
    """On average."""
    fullest: int
    size: float
    """Bytes, on average."""
    largest: int

    @property
    def within(self) -> bool:
        """No window has more members than is promised."""
        return self.fullest <= self.kind.most


async def windows_of(url: str, database: str) -> Sequence[Held]:
    """By kind."""
    connection = await asyncpg.connect(database)
    try:
        kinds = {row[0]: Kind(*row[1:]) for row in await connection.fetch(_FILTERS)}
    finally:
        await connection.close()
    found: dict[Kind, list[tuple[int, int]]] = defaultdict(list)
    with redis.Redis.from_url(url) as client:
        for key, members, size in _windows(client):
            found[_kind(kinds, key)].append((members, size))
    return [_held(kind, windows) for kind, windows in sorted(found.items())]


def _windows(client: redis.Redis) -> Iterator[tuple[bytes, int, int]]:
    """Each window: its key, how many members it has beside its marker, its bytes."""
    keys = client.scan_iter(match="*\0*", count=_CHUNK)
    while part := list(islice(keys, _CHUNK)):
        asking = client.pipeline(transaction=False)
        for key in part:
            asking.zcard(key)
            asking.memory_usage(key, samples=0)
        told = asking.execute()
        yield from zip(part, [card - 1 for card in told[::2]], told[1::2], strict=True)


def _kind(kinds: Mapping[int, Kind], key: bytes) -> Kind:
    """A key is `…:revision:epoch:org unit NUL lead`."""
    revision = key.partition(b"\0")[0].split(b":")[-3]
    return kinds[int(revision)]


def _held(kind: Kind, windows: Sequence[tuple[int, int]]) -> Held:
    members, sizes = zip(*windows, strict=True)
    return Held(
        kind,
        len(windows),
        sum(members) / len(windows),
        max(members),
        sum(sizes) / len(windows),
        max(sizes),
    )
