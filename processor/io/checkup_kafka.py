"""What `processor doctor` asks Kafka.  It changes nothing but the epoch of a transactional id of its own."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalGenerationError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.group import HeartbeatRequest

from processor.failures import Failure, Retryable
from processor.io.kafka import Cluster, Partition, at_start, translated
from processor.io.kafka_committed import coordinated
from processor.io.kafka_offsets import committed, held
from processor.io.kafka_refusal import ConfigsHiddenError
from processor.io.kafka_topics import broker_configs, topic_configs
from processor.io.topic_ids import described
from processor.pure import checkup_kafka as judge
from processor.pure.checkup_kafka import Group, Role, Topic
from processor.pure.findings import Finding, fault, ok
from processor.pure.lane import Bounds
from processor.settings import Settings

ANSWER_S = 10.0
_NOT_TOLD = -(2**31)
_NO_GENERATION, _NOBODY = -1, "nobody"


async def kafka(settings: Settings) -> Sequence[Finding]:
    """Brokers, topics, group and transactions; raises `StartRefused` where Kafka is away."""
    cluster = Cluster(settings)
    async with at_start(cluster) as admin:
        nodes = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
        brokers = len(nodes)
        findings = [judge.brokers(brokers, await _versions(admin))]
        roles = _roles(settings)
        found = await _topics(admin, [role.name for role in roles])
        for role in roles:
            topic = found.get(role.name)
            findings += judge.topic(topic, role, brokers) if topic else [judge.missing(role.name)]
        findings += judge.together(found, roles, settings.dead_topic)
        if settings.dead_topic in found:
            dead = found[settings.dead_topic]
            findings += judge.remembered(dead, await _offsets_minutes(admin, nodes[0]))
        inputs = [found[role.name] for role in roles if role.reads and role.name in found]
        findings += judge.group(await _group(cluster, admin, inputs))
        if settings.processing_guarantee == "exactly_once":
            findings.append(await _transactions(cluster))
    return findings


def _roles(settings: Settings) -> Sequence[Role]:
    raw = settings.raw_topic
    return (
        Role(raw, reads=True, rows=True),
        Role(settings.merge_topic, reads=True),
        Role(settings.enriched_topic, writes=True, carries=raw),
        Role(settings.dead_topic, writes=True, carries=raw),
        Role(settings.engagement_topic),
    )


async def _versions(admin: AIOKafkaAdminClient) -> Mapping[int, int]:
    client = admin._client  # noqa: SLF001 - the admin client asks of itself what it needs alone
    answer = await client.send(client.get_random_node(), ApiVersionRequest())
    return {api: newest for api, _, newest in answer.api_versions}


async def _topics(admin: AIOKafkaAdminClient, names: Sequence[str]) -> Mapping[str, Topic]:
    answer = await described(admin._client, names, allowed=True)  # noqa: SLF001
    rows = [row for row in answer.to_object()["topics"] if not row["error_code"]]
    return {row["topic"]: _topic(row, await _configs(admin, row["topic"])) for row in rows}


async def _configs(admin: AIOKafkaAdminClient, topic: str) -> Mapping[str, str]:
    """Nothing where we may not know."""
    try:
        return (await topic_configs(admin, [topic]))[topic]
    except ConfigsHiddenError:
        return {}


def _topic(row: Mapping[str, Any], configs: Mapping[str, str]) -> Topic:
    partitions = row["partitions"]
    allowed = row.get("authorized_operations", _NOT_TOLD)
    return Topic(
        row["topic"],
        len(partitions),
        sum(partition["leader"] < 0 for partition in partitions),
        min(len(partition["replicas"]) for partition in partitions),
        min(len(partition["isr"]) for partition in partitions),
        configs,
        None if allowed == _NOT_TOLD else allowed,
    )


async def _offsets_minutes(admin: AIOKafkaAdminClient, broker: int) -> int | None:
    """How long offsets of a group without members are kept; None where we may not know."""
    name = "offsets.retention.minutes"
    try:
        return int((await broker_configs(admin, broker, [name]))[name])
    except (ConfigsHiddenError, KeyError):
        return None


async def _group(cluster: Cluster, admin: AIOKafkaAdminClient, inputs: Sequence[Topic]) -> Group:
    name = cluster.settings.consumer_group
    if not await coordinated(partial(_may_join, admin, name)):
        return Group(name, 0, may_read=False, places={})
    (answer,) = await coordinated(partial(admin.describe_consumer_groups, [name]))
    (row,) = answer.to_object()["groups"]
    partitions = [Partition(topic.name, n) for topic in inputs for n in range(topic.partitions)]
    places = await _places(cluster, admin, partitions) if partitions else {}
    return Group(name, len(row["members"]), may_read=True, places=places)


async def _may_join(admin: AIOKafkaAdminClient, group: str) -> bool:
    """A heartbeat of nobody changes nothing, and takes the permission that a member needs."""
    try:
        coordinator = await admin.find_coordinator(group)
    except GroupAuthorizationFailedError:
        return False
    request = HeartbeatRequest(group, _NO_GENERATION, _NOBODY)
    code = (await admin._client.send(coordinator, request)).error_code  # noqa: SLF001
    if code in (0, UnknownMemberIdError.errno, IllegalGenerationError.errno):
        return True
    if code != GroupAuthorizationFailedError.errno:
        raise for_code(code)
    return False


async def _places(
    cluster: Cluster, admin: AIOKafkaAdminClient, partitions: Sequence[Partition]
) -> Mapping[tuple[str, int], Bounds]:
    group = cluster.settings.consumer_group
    offsets = await committed(admin, group, partitions)
    starts, ends = await held(cluster, partitions)
    return {
        place: Bounds(
            offsets[place].offset if offsets[place].offset >= 0 else None,
            starts[place],
            ends[place],
        )
        for place in partitions
    }


async def _transactions(cluster: Cluster) -> Finding:
    """Whether a producer may have a transactional id of the group's prefix: it is begun, and nothing is sent."""
    name, part = f"{cluster.settings.consumer_group}.doctor", "transactions"
    producer = cluster.producer(cluster.tuning.produce_bytes, name)
    try:
        async with translated(ANSWER_S):
            await producer.start()
    except Failure as error:
        said = error.reason if isinstance(error, Retryable) else str(error)
        prefix = cluster.settings.consumer_group
        todo = (
            f"add the ACL: --operation WRITE --operation DESCRIBE --transactional-id {prefix}."
            " --resource-pattern-type prefixed, or look whether __transaction_state is served"
        )
        return fault(part, said, todo)
    finally:
        await producer.stop()
    return ok(part, f"transactional ids {cluster.settings.consumer_group}.* may be used")
