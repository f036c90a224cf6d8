"""Which topics there are, and whether they are still the same ones: a topic that is created again has another id.

aiokafka asks for metadata in a version without topic ids; the request is made here, in the version that has them (brokers from
3.1 on).  Of older brokers only the cluster and the name tell topics apart.  No topic is created by asking for it.
"""

import hashlib
import io
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from processor.pure.position import IDENTITY, NO_TOPIC, Topic

_NOT_THERE = 3
_NO_ID = bytes(16)
"""As brokers say that have not been told yet to give topics ids."""
_CREATES_NOTHING = False


class _Uuid:
    """16 bytes."""

    @classmethod
    def decode(cls, data: io.BytesIO) -> bytes:
        return data.read(16)

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return struct.pack("16s", value)


class _Response(Response):  # type: ignore[misc]  # aiokafka ships no types
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Request(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid),
                ("topic", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


_Only: TypeAlias = _Request


class _TopicIds(Request[_Only]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: Sequence[str], *, allowed: bool) -> None:
        self._topics = topics
        self._allowed = allowed

    def build(self, request_struct_class: Any) -> Any:
        no_tags: dict[int, bytes] = {}
        named = [(bytes(16), name, no_tags) for name in self._topics]
        return request_struct_class(named, _CREATES_NOTHING, self._allowed, no_tags)


async def described(client: Any, names: Sequence[str], *, allowed: bool = False) -> Any:
    """What the cluster says of the topics of these names, and what of them is `allowed`; raises aiokafka's errors."""
    node = client.get_random_node()
    try:
        return await client.send(node, _TopicIds(names, allowed=allowed))
    except NotImplementedError:  # an older broker
        return await client.send(
            node, MetadataRequest(list(names), allow_auto_topic_creation=False)
        )


async def identified(client: Any, name: str) -> bytes | None:
    """Which topic has the name, and then which name of which cluster it is: the same twice where brokers tell no topics apart.

    None where there is none; raises aiokafka's errors.
    """
    answer = await described(client, [name])
    (row,) = answer.to_object()["topics"]
    found = _topic(answer.cluster_id, row)
    return None if found is None else found.identity + _identity(answer.cluster_id, name, b"")


async def look(client: Any, names: Sequence[str]) -> Sequence[Topic]:
    """The topics of these names, the next offset of every partition being 0; raises aiokafka's errors."""
    answer = await described(client, names)
    found = {}
    for row in answer.to_object()["topics"]:
        found[row["topic"]] = _topic(answer.cluster_id, row)
    return [found.get(name) or Topic(NO_TOPIC, ()) for name in names]


def _topic(cluster: str | None, row: dict[str, Any]) -> Topic | None:
    if row["error_code"] == _NOT_THERE or not row["partitions"]:
        return None
    numbers = {partition["partition"] for partition in row["partitions"]}
    topic_id = row.get("topic_id", b"")
    identity = _identity(cluster, row["topic"], b"" if topic_id == _NO_ID else topic_id)
    return Topic(identity, (0,) * (max(numbers) + 1))


def _identity(cluster: str | None, name: str, topic_id: bytes) -> bytes:
    told = repr((cluster, name, topic_id)).encode()
    return hashlib.blake2b(told, digest_size=IDENTITY).digest()
