"""Judges what `processor doctor` was told by Redis, by Postgres and by the clocks."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from processor.pure.findings import Finding, fault, ok, warning

OLDEST_REDIS = 7
"""Scripts ask for PEXPIRETIME."""
OLDEST_POSTGRES = 16
"""The role of the API is granted with SET."""
LOCKS_A_CONNECTION = 257
"""A batch holds a lock for each bucket of leads, and one for the rules."""
AS_OWNER = "let DATABASE_URL name the role that ran `processor migrate`"
_NEARLY_FULL = 0.9
_OFF_MS, _FAR_OFF_MS = 1_000, 60_000
"""A window that expires allows for a minute."""


class Redis(Struct, frozen=True):
    """What a Redis server said of itself."""

    where: str
    """Which one, where there are several."""
    name: str
    version: str
    role: str
    policy: str
    limit: int
    """Bytes; 0: none."""
    used: int


class Postgres(Struct, frozen=True):
    """What a Postgres said of itself."""

    version: int
    """Major."""
    encoding: str
    replica: bool
    read_only: bool
    durable: Mapping[str, str]
    """`fsync`, `synchronous_commit`."""
    connections: int
    """In use."""
    most_connections: int
    """That are not reserved."""
    locks: int
    """Room in the lock table."""


class Rights(Struct, frozen=True):
    """What the user of `DATABASE_URL` may do."""

    user: str
    lacking: Sequence[str]
    """Tables it cannot read and write."""
    hidden: bool
    """Row-level security holds for it: it would see no row."""
    api_role: bool
    """It may go on as the role of the API."""
    workers: int
    """Seen in the last minute."""


def redis(told: Redis) -> Iterator[Finding]:
    """Version, role and memory of a server."""
    part, what = f"redis{told.where}", f"{told.name} {told.version}"
    if int(told.version.split(".")[0]) < OLDEST_REDIS:
        yield fault(part, what, f"run version {OLDEST_REDIS} or later")
    elif told.role != "master":
        yield fault(part, f"{what} is a replica", "let REDIS_URL name the primary")
    else:
        yield ok(part, what)
    part = f"redis eviction{told.where}"
    if told.policy == "noeviction":
        yield ok(part, "noeviction")
    else:
        said = f"it may evict windows (maxmemory-policy {told.policy})"
        yield fault(part, said, "run CONFIG SET maxmemory-policy noeviction")
    yield _memory(told)


def redis_rights(refused: Sequence[str]) -> Finding:
    """`refused` are commands of the scripts that the user may not run, each with the server's sentence."""
    if refused:
        todo = "let the user of REDIS_URL run EVALSHA, EVAL, INFO, TIME and what the scripts call"
        return fault("redis permissions", "; ".join(refused), todo)
    return ok("redis permissions", "every command of the scripts runs")


def _memory(told: Redis) -> Finding:
    part, used = f"redis memory{told.where}", f"{told.used >> 20} MB used"
    if not told.limit:
        return ok(part, f"{used}, no limit")
    used += f" of {told.limit >> 20} MB"
    if told.used > _NEARLY_FULL * told.limit:
        return fault(part, used, "raise maxmemory: lanes wait while it is full")
    return ok(part, used)


def postgres(told: Postgres) -> Iterator[Finding]:
    """Version, durability and room."""
    what = f"PostgreSQL {told.version}"
    if told.version < OLDEST_POSTGRES:
        yield fault("postgres", what, f"run version {OLDEST_POSTGRES} or later")
    elif told.replica or told.read_only:
        yield fault("postgres", f"{what} is read-only", "let DATABASE_URL name the primary")
    elif told.encoding != "UTF8":
        said = f"{what}, the database is in {told.encoding}"
        yield fault("postgres", said, "use a database with ENCODING 'UTF8'")
    else:
        yield ok("postgres", what)
    off = [name for name, value in told.durable.items() if value == "off"]
    if off:
        said = f"{' and '.join(off)} off: a crash would take back committed verdicts"
        yield fault("postgres durability", said, f"set {' and '.join(off)} to on")
    else:
        yield ok("postgres durability", "what is committed stays")


def room(told: Postgres, pool: int, workers: int) -> Iterator[Finding]:
    """Connections and locks; `pool`: connections of a worker, `workers`: how many run."""
    free = told.most_connections - told.connections
    said = (
        f"{told.connections} of {told.most_connections} in use; a worker or API takes up to {pool}"
    )
    if free < pool:
        yield warning("postgres connections", said, "raise max_connections")
    else:
        yield ok("postgres connections", said)
    fit = told.locks // (pool * LOCKS_A_CONNECTION)
    said = f"room for {fit} workers, {workers} running"
    if fit < max(workers, 1):
        yield warning("postgres locks", said, "raise max_locks_per_transaction to 256 and restart")
    else:
        yield ok("postgres locks", said)


def rights(told: Rights) -> Finding:
    """What the user may do."""
    part = "postgres permissions"
    if told.lacking:
        said = f"{told.user} may not read and write {', '.join(told.lacking)}"
        return fault(part, said, AS_OWNER)
    if told.hidden:
        said = f"row-level security hides every event from {told.user}"
        return fault(part, said, AS_OWNER)
    if not told.api_role:
        said = f"{told.user} may not act as processor_api, so `processor api` cannot"
        return fault(part, said, f"run GRANT processor_api TO {told.user}")
    return ok(part, f"{told.user} may do all that a worker and an API do")


def clock(part: str, ahead_ms: int) -> Finding:
    """How far another machine's clock is ahead of this one's."""
    if abs(ahead_ms) < _OFF_MS:
        return ok(part, "agrees with this machine's")
    way = "ahead of" if ahead_ms > 0 else "behind"
    said = f"{abs(ahead_ms) / 1000:.1f} s {way} this machine's"
    todo = "synchronise the clocks (NTP)"
    return fault(part, said, todo) if abs(ahead_ms) > _FAR_OFF_MS else warning(part, said, todo)
