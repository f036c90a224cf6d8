"""The connection to Kafka: who the clients are, how they are tuned, what their errors mean.

The modules ``kafka_*`` beside it hold one job each; together they are alone in importing aiokafka.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalOperation,
    IllegalStateError,
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaError,
    NodeNotReadyError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFenced,
)
from msgspec import Struct

from processor.failures import Fenced, Retryable, StartRefused, Stopped, Unsettled
from processor.io import kafka_records
from processor.io.ending import gave_up
from processor.io.kafka_committed import Member, UnstableOffsetError
from processor.io.kafka_refusal import ConfigsHiddenError, refusal
from processor.settings import Settings

Partition: TypeAlias = TopicPartition
NOWHERE = NoOffsetForPartitionError, OffsetOutOfRangeError
"""What a fetch raises where there is no place to fetch from, or none that the log holds."""
_RETRY_S = 0.05


class Tuning(Struct, frozen=True):
    """What is no setting: times in ms, sizes in bytes.  Tests shorten the times."""

    session_ms: int = 10_000
    rebalance_ms: int = 30_000
    """Kept under the client's request timeout: a rebalance is one long request."""
    transaction_ms: int = 15_000
    retry_ms: int = 20
    """Brokers may refuse the first produce of a transaction while they still verify it; each retry waits this long."""
    metadata_ms: int = 10_000
    """How soon added partitions are seen."""
    fetch_wait_ms: int = 100
    """An idle fetch holds back the ones of other partitions on the same broker for this long."""
    batch_records: int = 4_000
    first_batch_records: int = 250
    """Of a lane; its batches double from there."""
    batch_bytes: int = 8 << 20
    partition_fetch_bytes: int = 2 << 20
    held_bytes: int = 32 << 20
    """Of all lanes together; a record counts as its key, its value and `record_bytes`."""
    record_bytes: int = kafka_records.RECORD_BYTES
    produce_bytes: int = 512 << 10
    drain_ms: int = 14_000
    """How long batches in flight may take to finish before they are abandoned."""
    recheck_ms: int = 3_000
    """How often a stopped lane looks whether its offset was reset."""
    stall_ms: int = 300_000
    """A lane without progress while nothing it needs is away ends the process after this."""


DEFAULT_TUNING = Tuning()


class Cluster:
    """Makes the clients of one cluster, all with the same address and credentials."""

    def __init__(self, settings: Settings, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.settings = settings
        self.tuning = tuning
        self._connection = _connection(settings)
        kafka_records.install()

    def admin(self) -> AIOKafkaAdminClient:
        """An admin client, not started."""
        # No longer than a producer waits: what is cancelled while it connects would leak.
        timeout = min(10_000, self.tuning.transaction_ms)
        return AIOKafkaAdminClient(**self._connection, request_timeout_ms=timeout)

    def consumer(self) -> AIOKafkaConsumer:
        """A consumer of the group, not started, without subscription.

        An offset outside the log is an error: where to go on is an operator's choice.
        """
        return self.member(self.settings.consumer_group, self.tuning.partition_fetch_bytes)

    def member(self, group: str, partition_bytes: int) -> AIOKafkaConsumer:
        """As `consumer`, of any group; it reads committed messages alone, and so many bytes of a partition at once."""
        tuning = self.tuning
        return self._reading(
            group_id=group,
            auto_offset_reset="none",
            session_timeout_ms=tuning.session_ms,
            heartbeat_interval_ms=tuning.session_ms // 5,
            rebalance_timeout_ms=tuning.rebalance_ms,
            request_timeout_ms=tuning.rebalance_ms + 10_000,
            retry_backoff_ms=50,
            metadata_max_age_ms=tuning.metadata_ms,
            max_partition_fetch_bytes=partition_bytes,
            fetch_max_bytes=partition_bytes * 8,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
        )

    def reader(self) -> AIOKafkaConsumer:
        """A consumer outside any group, not started, for looking at partitions."""
        return self._reading(auto_offset_reset="earliest", request_timeout_ms=10_000)

    def follower(self, partition_bytes: int, fetch_bytes: int) -> AIOKafkaConsumer:
        """As `reader`, for reading records in turn: an offset outside the log is an error, not another place to begin."""
        return self._reading(
            auto_offset_reset="none",
            request_timeout_ms=10_000,
            retry_backoff_ms=50,
            metadata_max_age_ms=self.tuning.metadata_ms,
            max_partition_fetch_bytes=partition_bytes,
            fetch_max_bytes=fetch_bytes,
        )

    def _reading(self, **how: Any) -> AIOKafkaConsumer:
        return Member(
            **self._connection,
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=self.tuning.fetch_wait_ms,
            **how,
        )

    def producer(self, max_batch_bytes: int, transactional_id: str | None) -> AIOKafkaProducer:
        """An idempotent producer, not started; transactional where it has an id."""
        tuning = self.tuning
        return AIOKafkaProducer(
            **self._connection,
            enable_idempotence=True,
            transactional_id=transactional_id,
            transaction_timeout_ms=tuning.transaction_ms,
            max_batch_size=max_batch_bytes,
            request_timeout_ms=tuning.transaction_ms,
            retry_backoff_ms=tuning.retry_ms,
            metadata_max_age_ms=tuning.metadata_ms,
        )

    async def refusal(self) -> str | None:
        """Why the brokers do not let us in, and which setting to look at, where they say so."""
        return await refusal(self._connection)

    def transactional_id(self, partition: Partition) -> str:
        """One per input partition: its producer's start is what fences the partition's former owner."""
        return f"{self.settings.consumer_group}.{partition.topic}.{partition.partition}"


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client; raises `Retryable` where Kafka does not answer within 10 s."""
    async with translated(10):
        admin = await _reached(cluster)
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def at_start(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    """As `connected`, for the start of a command: raises `StartRefused` with one line that says what to do."""
    try:
        with quietly():
            async with connected(cluster) as admin, translated(30):
                yield admin
    except Retryable as error:
        raise StartRefused(await _unusable(cluster, error)) from error


async def _unusable(cluster: Cluster, error: Retryable) -> str:
    """What is wrong and what to do, in one line."""
    if isinstance(error.__cause__, ConfigsHiddenError):
        return f"cannot use Kafka: {error.__cause__.args[0]}"
    with quietly():
        why = await cluster.refusal()
    servers = cluster.settings.kafka_bootstrap_servers
    reason = f"cannot use Kafka at {servers}: {error.reason}; check KAFKA_BOOTSTRAP_SERVERS"
    return f"cannot use Kafka: {why}" if why else reason


@contextmanager
def quietly() -> Iterator[None]:
    """For commands: aiokafka logs none of what it raises, it would say the same in several lines."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@asynccontextmanager
async def translated(seconds: float) -> AsyncIterator[None]:
    """Runs one step on Kafka within `seconds`; raises `Fenced`, `Stopped`, `Unsettled` or `Retryable` for its errors.

    A producer whose step raised is worth nothing: its sender may be dead, its sequence broken
    or its transaction half ended without a sign.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (ProducerFenced, InvalidProducerEpoch, CommitFailedError) as error:
        raise Fenced(f"{type(error).__name__}: {error}") from error
    except InvalidTimestampError as error:
        raise Stopped(
            "the output topic refuses the record's timestamp; raise its message.timestamp.before.max.ms"
            " (for an old one) or message.timestamp.after.max.ms and restart the worker"
        ) from error
    except (IllegalStateError, IllegalOperation, AssertionError) as error:
        raise Retryable("kafka", f"client is unusable: {type(error).__name__}: {error}") from error
    except asyncio.CancelledError as error:
        if not gave_up():
            raise
        # aiokafka cancels what waits for a connection that is lost
        raise Retryable("kafka", "the client gave up a request") from error
    except TimeoutError as error:
        raise Retryable("kafka", f"no answer within {seconds:g} s") from error
    except (KafkaError, OSError) as error:
        raise _away(error) from error


def _away(error: Exception) -> Retryable:
    if isinstance(error, UnstableOffsetError):
        return Unsettled("kafka", "the end of a transaction does not come")
    return Retryable("kafka", f"{type(error).__name__}: {error}")


async def _reached(cluster: Cluster) -> AIOKafkaAdminClient:
    """A started admin client of brokers that answer: for a moment, brokers that have just come back are not listed."""
    while True:
        admin = cluster.admin()
        try:
            await admin.start()
            await admin.describe_cluster()
        except NodeNotReadyError:
            await admin.close()
            await asyncio.sleep(_RETRY_S)
        except BaseException:
            await admin.close()
            raise
        else:
            return admin


def _connection(settings: Settings) -> Mapping[str, Any]:
    protocol = settings.kafka_security_protocol
    connection: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.replace(" ", "").split(","),
        "client_id": "processor",
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        connection["ssl_context"] = _ssl_context(settings)
    if protocol.startswith("SASL_") and settings.kafka_sasl_password:
        connection |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return connection


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    read = "KAFKA_SSL_CAFILE"
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
        if settings.kafka_ssl_certfile:
            read = "KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile, _none)
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = f"cannot read the certificates of Kafka: {error}; check {read}"
        raise StartRefused(reason) from error
    return context


def _none() -> str:
    """The password of a key: OpenSSL would ask for it on the terminal."""
    return ""
