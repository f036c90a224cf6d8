"""Judges what `processor doctor` was told by Kafka: brokers, topics, the group and where it stands."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from processor.pure.findings import Finding, fault, length, ok, warning
from processor.pure.lane import Bounds

READ, WRITE = 3, 4
"""Operations, as bits of what a broker says is allowed."""
SHORTEST_MS = 86_400_000
"""An outage of a day is what windows are dimensioned for."""
_TRANSACTIONS = (22, 24, 25, 26, 28)
_RELEASES = (  # (API, version): the release that brought it
    (0, 13, "4.1"),
    (0, 12, "4.0"),
    (0, 11, "3.8"),
    (0, 10, "3.7"),
    (24, 4, "3.6"),
)
_FOR_EVER = -1
AFTER, BEFORE = "message.timestamp.after.max.ms", "message.timestamp.before.max.ms"
ANY_AGE_MS = 2**63 - 1


class Topic(Struct, frozen=True):
    """A topic as the cluster describes it."""

    name: str
    partitions: int
    leaderless: int
    """Partitions that nobody serves."""
    copies: int
    """Of the partition that has fewest."""
    in_sync: int
    """Of the partition where fewest are."""
    configs: Mapping[str, str]
    """Empty: we may not know."""
    allowed: int | None
    """Operations as bits; None where the broker does not tell."""

    def number(self, config: str) -> int:
        """A setting that is a number."""
        return int(self.configs[config])


class Role(Struct, frozen=True):
    """What a topic is for a worker."""

    name: str
    reads: bool = False
    """What it loses before that is lost."""
    writes: bool = False
    rows: bool = False
    """What is read becomes rows."""
    carries: str = ""
    """The input whose messages come out here."""


class Group(Struct, frozen=True):
    """The consumer group."""

    name: str
    members: int
    may_read: bool
    places: Mapping[tuple[str, int], Bounds]
    """By input partition."""


def brokers(number: int, versions: Mapping[int, int]) -> Finding:
    """`versions`: the newest version of each API."""
    if any(api not in versions for api in _TRANSACTIONS):
        return fault("kafka", "its brokers know no transactions", "run Kafka 3.6 or later")
    release = next((r for api, version, r in _RELEASES if versions.get(api, -1) >= version), None)
    servers = f"{number} broker{'s' if number != 1 else ''}"
    if release is None:
        said = f"{servers}, older than 3.6: they know not all settings of the topics that we create"
        return warning("kafka", said, "run Kafka 3.6 or later")
    return ok("kafka", f"{servers}, Kafka {release} or later")


def missing(name: str) -> Finding:
    """There is no such topic, or none that may be seen."""
    return fault(f"topic {name}", "is missing or hidden", "run `processor topics create`")


def topic(found: Topic, role: Role, brokers: int) -> Sequence[Finding]:
    """What is not as it should be, or that all of it is."""
    if not found.configs:
        todo = f"add the ACL: --operation DESCRIBE_CONFIGS --topic {found.name}"
        hidden = fault(f"topic {found.name}", "its configuration cannot be read", todo)
        return [hidden, *_allowed(found, role)]
    faults = [*_served(found, brokers), *_kept(found, role), *_allowed(found, role)]
    told = f"{found.partitions} partitions, kept for {_kept_for(found)}"
    return faults or [ok(f"topic {found.name}", told)]


def _kept_for(found: Topic) -> str:
    retention = found.number("retention.ms")
    return "ever" if retention == _FOR_EVER else length(retention)


def _served(found: Topic, brokers: int) -> Iterator[Finding]:
    part, needed = f"topic {found.name}", found.number("min.insync.replicas")
    if found.leaderless:
        said = f"{found.leaderless} partitions have no leader"
        yield fault(part, said, "bring their brokers back")
    elif found.in_sync < needed:
        said = f"{found.in_sync} replicas are in sync, min.insync.replicas is {needed}: nothing can be written"
        yield fault(part, said, "bring the brokers back or add replicas")
    elif found.in_sync < found.copies:
        said = f"{found.in_sync} of {found.copies} replicas are in sync"
        yield warning(part, said, "bring their brokers back")
    elif brokers > found.copies == 1:
        said = f"one copy on {brokers} brokers: a lost disk loses it"
        yield warning(part, said, "add replicas with kafka-reassign-partitions.sh")
    elif found.copies > needed == 1:
        said = "min.insync.replicas is 1: what was acknowledged may be lost with one broker"
        yield warning(part, said, _set(found, "min.insync.replicas", 2))
    if found.configs.get("unclean.leader.election.enable") == "true":
        said = "unclean.leader.election.enable is true: an election may lose messages"
        yield warning(part, said, _set(found, "unclean.leader.election.enable", "false"))


def _kept(found: Topic, role: Role) -> Iterator[Finding]:
    part, retention = f"topic {found.name}", found.number("retention.ms")
    if found.configs["cleanup.policy"] != "delete":
        said = f"cleanup.policy is {found.configs['cleanup.policy']}: messages with the same key would be lost"
        yield fault(part, said, _set(found, "cleanup.policy", "delete"))
    if 0 <= retention < SHORTEST_MS:
        said = f"retention.ms is {length(retention)}"
        todo = _set(found, "retention.ms", SHORTEST_MS * 7)
        if role.reads:
            yield fault(part, f"{said}: a longer outage of the workers loses messages", todo)
        else:
            yield warning(part, f"{said}: readers that are away for longer miss messages", todo)
    if retention == _FOR_EVER and role.rows:
        said = "kept for ever: `processor purge` refuses, since it all could come again"
        yield warning(part, said, _set(found, "retention.ms", SHORTEST_MS * 7))
    if found.number("retention.bytes") != _FOR_EVER:
        said = f"retention.bytes is {found.configs['retention.bytes']}: messages may go before their time"
        yield warning(part, said, _set(found, "retention.bytes", _FOR_EVER))
    if found.configs["message.timestamp.type"] != "CreateTime":
        said = "message.timestamp.type is LogAppendTime: records lose the timestamps they were sent with"
        yield warning(part, said, _set(found, "message.timestamp.type", "CreateTime"))


def _allowed(found: Topic, role: Role) -> Iterator[Finding]:
    if found.allowed is None:
        return
    wanted = [(READ, "READ", role.reads), (WRITE, "WRITE", role.writes)]
    lacking = [name for bit, name, needed in wanted if needed and not found.allowed >> bit & 1]
    if lacking:
        todo = f"add the ACL: --operation {' --operation '.join(lacking)} --topic {found.name}"
        yield fault(f"topic {found.name}", f"{' and '.join(lacking)} is not allowed", todo)


def together(topics: Mapping[str, Topic], roles: Sequence[Role], dead: str) -> Iterator[Finding]:
    """What topics must be with regard to each other; those that are missing or hidden are passed over."""
    known = {name: topic for name, topic in topics.items() if topic.configs}
    for role in roles:
        if role.carries in known and role.name in known:
            output, source = known[role.name], known[role.carries]
            if role.name == dead:
                yield from _letters(output, source)
            else:
                yield from _spread(output, source)
                yield from _times(output, source)


def _letters(dead: Topic, source: Topic) -> Iterator[Finding]:
    twice = 2 * source.number("max.message.bytes")
    if dead.number("max.message.bytes") < twice:
        said = (
            f"max.message.bytes is {dead.configs['max.message.bytes']}, less than twice that of {source.name}:"
            " large letters lose their payload and cannot be replayed"
        )
        yield fault(f"topic {dead.name}", said, _set(dead, "max.message.bytes", twice))


def remembered(dead: Topic, minutes: int | None) -> Iterator[Finding]:
    """Whether letters are gone before Kafka forgets that they were replayed; `minutes`: how long it keeps offsets."""
    if minutes is None or not dead.configs:
        return
    kept = dead.number("retention.ms")
    if kept != _FOR_EVER and kept + dead.number("segment.ms") <= minutes * 60_000:
        return
    said = (
        f"letters stay for {_kept_for(dead)} and the rest of a segment, and what was replayed is forgotten"
        f" {length(minutes * 60_000)} after a replay: they would be replayed again"
    )
    todo = _set(dead, "retention.ms", f"{6 * SHORTEST_MS},segment.ms={SHORTEST_MS // 2}")
    yield warning(f"topic {dead.name}", said, f"{todo}, or raise offsets.retention.minutes")


def _spread(output: Topic, source: Topic) -> Iterator[Finding]:
    if output.partitions != source.partitions:
        said = (
            f"{output.partitions} partitions, {source.name} has {source.partitions}:"
            " messages are spread by their keys anew"
        )
        todo = f"give both as many (kafka-topics.sh --alter --topic {output.name} --partitions N)"
        yield warning(f"topic {output.name}", said, todo)


def _times(output: Topic, source: Topic) -> Iterator[Finding]:
    # How old a record is when it is read depends on retention, segments and resets, of merges too.
    for limit, needed in ((AFTER, int(source.configs.get(AFTER, 0))), (BEFORE, ANY_AGE_MS)):
        if int(output.configs.get(limit, needed)) < needed:
            said = f"{limit} is less than inputs let in and keep: a record that it refuses stops a lane"
            yield fault(f"topic {output.name}", said, _set(output, limit, needed))


def group(found: Group) -> Iterator[Finding]:
    """Who is in it, and whether it can go on from where it stands."""
    part = f"group {found.name}"
    if not found.may_read:
        todo = (
            f"add the ACL: --operation READ --group {found.name} --resource-pattern-type prefixed"
        )
        yield fault(part, "READ is not allowed", todo)
        return
    lag = sum(_lag(bounds) for bounds in found.places.values())
    behind = max((_lag(bounds) for bounds in found.places.values()), default=0)
    said = f"{found.members} workers, {lag} records to read, at most {behind} in a partition"
    if lag and not found.members:
        yield warning(part, said, "start `processor worker`")
    else:
        yield ok(part, said)
    for (name, number), bounds in sorted(found.places.items()):
        if bounds.committed is not None and not bounds.start <= bounds.committed <= bounds.end:
            held = f"it is at {bounds.committed}, the topic holds {bounds.start} to {bounds.end}"
            command = f"processor offsets reset --topic {name} --partition {number} --to earliest"
            yield fault(f"{part} in {name}/{number}", f"{held}: its lane stops", f"run `{command}`")


def _lag(bounds: Bounds) -> int:
    begins = bounds.start if bounds.committed is None else bounds.committed
    return max(0, bounds.end - begins)


def _set(found: Topic, config: str, value: object) -> str:
    return f"run kafka-configs.sh --alter --topic {found.name} --add-config {config}={value}"
