"""A record for tests that never look at it."""

from collections.abc import Sequence

from msgspec import Struct


class NoRecord(Struct, frozen=True):
    """One record of the merge topic."""

    topic: str = "leads.merges"
    partition: int = 0
    offset: int = 0
    timestamp: int | None = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


NO_RECORD = NoRecord()
