"""Topics: which exist, how large their messages may be, and `processor topics create`."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError, for_code
from msgspec import Struct

from processor.failures import StartRefused
from processor.io.kafka import Cluster, at_start, connected, translated
from processor.io.kafka_refusal import ConfigsHiddenError
from processor.pure.checkup_kafka import AFTER, ANY_AGE_MS, BEFORE
from processor.settings import Settings

PARTITIONS = 8
MERGE_PARTITIONS = 4
"""Merges are keyed by org unit, so different org units need not wait for each other."""
RETENTION_MS = 7 * 86_400_000
DEAD_RETENTION_MS = 6 * 86_400_000
"""With what is left of a segment less than the 7 days for which Kafka remembers by default what was replayed."""
DEAD_SEGMENT_MS = 86_400_000 // 2
KAFKA_DEFAULT_MAX_BYTES = 1_048_588
_REPLICATED = 3
_TOPIC_EXISTS = 36
_POLL_S = 0.02
_MAX_MESSAGE = "max.message.bytes"


class Topic(Struct, frozen=True):
    """A topic as `create_topics` found or made it."""

    name: str
    partitions: int
    created: bool

    def __str__(self) -> str:
        state = "created" if self.created else "exists"
        return f"{self.name}: {state}, {self.partitions} partitions"


class Limits:
    """The size of the largest message each output topic takes, as the cluster says."""

    def __init__(self, cluster: Cluster, topics: Sequence[str]) -> None:
        self._cluster = cluster
        self.topics = topics
        self._max_bytes: Mapping[str, int] = {}

    def max_bytes(self, topic: str) -> int:
        """The topic's ``max.message.bytes``: it bounds a whole batch, so also a single record."""
        return self._max_bytes[topic]

    @property
    def smallest(self) -> int:
        """Batches of this size fit into every output topic."""
        return min(self._max_bytes.values())

    @property
    def known(self) -> Mapping[str, int]:
        """What the cluster said last; `read` leaves it as it is and puts another one in its place."""
        return self._max_bytes

    async def read(self, admin: AIOKafkaAdminClient) -> None:
        """Asks the cluster."""
        self._max_bytes = await _max_message_bytes(admin, self.topics)

    async def refresh(self) -> None:
        """As `read`, with a connection of its own; raises `Retryable`."""
        async with connected(self._cluster) as admin, translated(10):
            await self.read(admin)


async def partitions_of(admin: AIOKafkaAdminClient, topic: str) -> int:
    """How many a topic has; raises `StartRefused` where it is missing."""
    await require_topics(admin, [topic])
    return (await _partitions(admin))[topic]


async def require_partition(admin: AIOKafkaAdminClient, topic: str, partition: int) -> None:
    """Raises `StartRefused` where there is no such topic or partition."""
    count = (await _partitions(admin)).get(topic)
    if count is None:
        raise StartRefused(f"there is no topic {topic}")
    if not 0 <= partition < count:
        raise StartRefused(f"topic {topic} has no partition {partition}, only 0 to {count - 1}")


async def require_topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Raises `StartRefused` where a topic is missing."""
    existing = await _partitions(admin)
    for name in names:
        if name not in existing:
            raise StartRefused(f"topic {name} is missing; run `processor topics create`")


async def create_topics(
    settings: Settings, partitions: int = PARTITIONS, replication: int | None = None
) -> Sequence[Topic]:
    """Creates the topics that are missing and leaves the others as they are.

    `replication` None: three copies where there are three brokers, else one.  Raises `StartRefused`.
    """
    async with at_start(Cluster(settings)) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        copies = replication or (_REPLICATED if brokers >= _REPLICATED else 1)
        made = await _create(admin, _inputs(settings, partitions, copies))
        await _known(admin, _input_names(settings))
        raw_max = (await _max_message_bytes(admin, [settings.raw_topic]))[settings.raw_topic]
        made |= await _create(admin, _outputs(settings, partitions, copies, raw_max * 2))
        names = all_topics(settings)
        existing = await _known(admin, names)
    return [Topic(n, existing[n], n in made) for n in names]


def all_topics(settings: Settings) -> list[str]:
    """The names of those that `create_topics` makes."""
    return [*_input_names(settings), *_output_names(settings)]


def _input_names(settings: Settings) -> Sequence[str]:
    return settings.raw_topic, settings.merge_topic


def _output_names(settings: Settings) -> Sequence[str]:
    return settings.enriched_topic, settings.dead_topic, settings.engagement_topic


def _inputs(settings: Settings, partitions: int, copies: int) -> Sequence[NewTopic]:
    configs = _configs(copies)
    return [
        NewTopic(settings.raw_topic, partitions, copies, topic_configs=configs),
        NewTopic(settings.merge_topic, MERGE_PARTITIONS, copies, topic_configs=configs),
    ]


def _outputs(settings: Settings, partitions: int, copies: int, dead_max: int) -> Sequence[NewTopic]:
    # An enriched event carries its record's timestamp, which the raw topic has already let in, however long ago.
    configs = _configs(copies) | dict.fromkeys((AFTER, BEFORE), str(ANY_AGE_MS))
    dead = configs | {
        _MAX_MESSAGE: str(dead_max),
        "retention.ms": str(DEAD_RETENTION_MS),
        "segment.ms": str(DEAD_SEGMENT_MS),
    }
    return [
        NewTopic(settings.enriched_topic, partitions, copies, topic_configs=configs),
        NewTopic(settings.dead_topic, partitions, copies, topic_configs=dead),
        NewTopic(settings.engagement_topic, partitions, copies, topic_configs=_configs(copies)),
    ]


def _configs(copies: int) -> dict[str, str]:
    """What the broker's own defaults may say otherwise is said."""
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "CreateTime",
        "retention.ms": str(RETENTION_MS),
        "retention.bytes": "-1",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": "2" if copies >= _REPLICATED else "1",
    }


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> set[str]:
    """The names of those that did not exist."""
    existing = await _partitions(admin)
    missing = [topic for topic in topics if topic.name not in existing]
    if not missing:
        return set()
    response = await admin.create_topics(missing)
    codes = {row[0]: row[1] for row in response.topic_errors}
    for name, code in codes.items():
        if code not in (0, _TOPIC_EXISTS):
            raise StartRefused(f"cannot create topic {name}: {for_code(code).description}")
    return {name for name, code in codes.items() if code == 0}


async def _partitions(admin: AIOKafkaAdminClient) -> Mapping[str, int]:
    """Every topic we may see, with its number of partitions.

    All of them are asked for: asking for one by name could make the broker create it.
    """
    topics = await admin.describe_topics(None)
    return {t["topic"]: len(t["partitions"]) for t in topics if t["error_code"] == 0}


async def _known(admin: AIOKafkaAdminClient, names: Iterable[str]) -> Mapping[str, int]:
    """As `_partitions`, once these are among them: the brokers hear of a new topic only after its creation is answered."""
    while True:
        existing = await _partitions(admin)
        if existing.keys() >= set(names):
            return existing
        await asyncio.sleep(_POLL_S)


async def _max_message_bytes(
    admin: AIOKafkaAdminClient, topics: Iterable[str]
) -> Mapping[str, int]:
    found = await topic_configs(admin, topics, [_MAX_MESSAGE])
    return {
        name: int(configs.get(_MAX_MESSAGE) or KAFKA_DEFAULT_MAX_BYTES)
        for name, configs in found.items()
    }


async def topic_configs(
    admin: AIOKafkaAdminClient, topics: Iterable[str], names: Sequence[str] = ()
) -> Mapping[str, Mapping[str, str]]:
    """What is set of topics that exist: everything, or these settings alone.  Raises aiokafka's errors."""
    only = dict.fromkeys(names, "")
    return await _configured(
        admin, [ConfigResource(ConfigResourceType.TOPIC, topic, only) for topic in topics]
    )


async def broker_configs(
    admin: AIOKafkaAdminClient, broker: int, names: Sequence[str]
) -> Mapping[str, str]:
    """What is set of a broker; raises aiokafka's errors."""
    only = dict.fromkeys(names, "")
    wanted = ConfigResource(ConfigResourceType.BROKER, str(broker), only)
    return (await _configured(admin, [wanted]))[str(broker)]


async def _configured(
    admin: AIOKafkaAdminClient, wanted: list[ConfigResource]
) -> Mapping[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for response in await admin.describe_configs(wanted):
        for code, message, _, name, entries in response.resources:
            if code:
                said = f"cannot read the configuration of {name}: {str(message).rstrip('.')}"
                raise ConfigsHiddenError(f"{said}; {_shows(code, name)}")
            found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


def _shows(code: int, name: str) -> str:
    """What to do where a configuration cannot be read."""
    if code == TopicAuthorizationFailedError.errno:
        return f"add the ACL: --operation DESCRIBE_CONFIGS --topic {name}"
    return "try again"
