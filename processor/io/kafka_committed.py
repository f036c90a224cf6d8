"""Where a group stands in a partition, as its coordinator answers once it knows, and a consumer that asks so.

aiokafka's own question overlooks what the answer says of the group as a whole: while a coordinator loads after a restart, it
would look as if nothing had ever been committed.  Nor does it ask for offsets of transactions that are about to end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import (
    OffsetFetchRequest_v1,
    OffsetFetchRequest_v2,
    OffsetFetchRequest_v3,
)
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from processor.io.kafka_records import together
from processor.io.topic_ids import identified

Partition: TypeAlias = TopicPartition
T = TypeVar("T")
UNSETTLED_S = 5.0
"""A producer that has started has waited until its predecessor's transaction had ended; what is left is done in milliseconds."""
_FIRST_S, _RETRY_S = 0.005, 0.1
_NOT_YET = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
_OFFSET_FETCH, _STABLE = 9, 7
_UNSTABLE = 88
"""aiokafka does not know it."""
_NO_OFFSET = -1
_STABLE_ALONE = True


class UnstableOffsetError(KafkaError):  # type: ignore[misc]  # aiokafka ships no types
    """A transaction has an offset that may yet become the group's."""

    errno = _UNSTABLE


class Standing(NamedTuple):
    """Where a group stands."""

    offset: int | None
    """None: nothing is committed."""
    by_lane: bool
    """A lane got there, and nobody has put the group there."""


def marked(offset: int) -> tuple[int, str]:
    """An offset with what says that a lane commits it: tools that move a group, or copy its offsets elsewhere, do not leave this."""
    return offset, f"lane {offset}"


class StableResponse(Response):  # type: ignore[misc]  # aiokafka ships no types
    """Of `StableRequest`."""

    API_KEY, API_VERSION = _OFFSET_FETCH, _STABLE
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class StableRequest(RequestStruct):  # type: ignore[misc]
    """OffsetFetch as of KIP-447: only what no transaction is about to change is answered."""

    API_KEY, API_VERSION = _OFFSET_FETCH, _STABLE
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = StableResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class Question(
    Request[OffsetFetchRequest_v1 | OffsetFetchRequest_v2 | OffsetFetchRequest_v3 | StableRequest]  # type: ignore[misc]
):
    """In the newest version that the broker knows; before 2.5 there are no stable offsets."""

    API_KEY = _OFFSET_FETCH

    def __init__(self, group: str, partition: Partition) -> None:
        self._group = group
        self._partition = partition

    def build(self, version: Any) -> Any:
        """The request itself."""
        topic, number = self._partition
        if version is StableRequest:
            return version(self._group, [(topic, [number], {})], _STABLE_ALONE, {})
        return version(self._group, [(topic, [number])])


class Member(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer of a group that does not take a coordinator's silence for an answer."""

    async def getmany(self, *partitions: Partition, **how: Any) -> dict[Partition, list[Any]]:
        """As aiokafka's; however little records are in Kafka, those of all partitions are bounded together."""
        with together():
            found: dict[Partition, list[Any]] = await super().getmany(*partitions, **how)
        return found

    async def standing(self, partition: Partition) -> Standing:
        """Where the group stands; raises aiokafka's errors, and `UnstableOffsetError` where it stays open for `UNSETTLED_S`."""
        question = Question(self._group_id, partition)
        clock = asyncio.get_running_loop().time
        since: float | None = None
        pause = _FIRST_S
        while True:
            try:
                return await coordinated(partial(_asked, self, question, partition))
            except UnstableOffsetError:
                since = since or clock()
                if clock() - since > UNSETTLED_S:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_S)

    async def identity(self, topic: str) -> bytes:
        """Which topic it is, as `identified` says; raises aiokafka's errors."""
        found = await identified(self._client, topic)
        if found is None:
            raise UnknownTopicOrPartitionError(topic)
        return found


async def coordinated(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of a group's coordinator, as soon as there is one: a new cluster begins to have them when one is asked for."""
    while True:
        try:
            return await ask()
        except _NOT_YET:
            await asyncio.sleep(_RETRY_S)


async def _asked(consumer: Member, question: Question, partition: Partition) -> Standing:
    coordinator = consumer._coordinator  # noqa: SLF001 - nobody else knows who it is
    await coordinator.ensure_coordinator_known()
    answer = await coordinator._send_req(question)  # noqa: SLF001
    try:
        return said(answer.to_object(), partition)
    except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
        coordinator.coordinator_dead()
        raise


def said(answer: dict[str, Any], partition: Partition) -> Standing:
    """What an answer says of the partition; raises aiokafka's error where it says one of the group or of the partition."""
    _refused(answer.get("error_code", 0))
    for topic in answer["topics"]:
        for found in topic["partitions"]:
            if (topic["topic"], found["partition"]) == partition:
                _refused(found["error_code"])
                offset: int = found["offset"]
                by_lane = (offset, found["metadata"]) == marked(offset)
                return Standing(None if offset == _NO_OFFSET else offset, by_lane)
    raise GroupLoadInProgressError(f"the coordinator leaves out {partition}")


def _refused(code: int) -> None:
    if code == _UNSTABLE:
        raise UnstableOffsetError("a transaction is about to end")
    if code:
        raise for_code(code)
