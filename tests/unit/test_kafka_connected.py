"""The connection to a Kafka that comes, comes back, or does not."""

from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InvalidTimestampError, KafkaConnectionError, NodeNotReadyError

from processor.failures import Retryable, StartRefused, Stopped
from processor.io.kafka import Cluster, at_start, connected, translated
from processor.settings import Settings


class Admin:
    """An admin client whose start, or first question, meets an error."""

    def __init__(self, start: Exception | None = None, question: Exception | None = None) -> None:
        self._start, self._question = start, question
        self.closed = False

    async def start(self) -> None:
        if self._start:
            raise self._start

    async def describe_cluster(self) -> dict[str, Any]:
        if self._question:
            raise self._question
        return {"brokers": [1]}

    async def close(self) -> None:
        self.closed = True


class Coming(Cluster):
    """Hands out these admin clients, one after the other."""

    def __init__(self, *admins: Admin) -> None:
        super().__init__(Settings())
        self.admins = iter(admins)

    def admin(self) -> AIOKafkaAdminClient:
        return cast("AIOKafkaAdminClient", next(self.admins))


async def test_brokers_that_have_just_come_back_are_asked_again() -> None:
    """For a moment such a cluster lists none of its brokers; only a client that is used stays open."""
    early, late = Admin(question=NodeNotReadyError("node None")), Admin()
    async with connected(Coming(early, late)) as admin:
        assert admin is cast("AIOKafkaAdminClient", late)
        assert (early.closed, late.closed) == (True, False)
    assert late.closed


async def test_a_timestamp_that_an_output_refuses_is_an_operators_matter() -> None:
    """The broker does not say whether it is too old or too new: the line names both limits."""
    with pytest.raises(Stopped, match=r"before\.max\.ms.*after\.max\.ms"):
        async with translated(1):
            raise InvalidTimestampError


async def test_a_cluster_that_cannot_be_reached_is_refused_at_once() -> None:
    """There is nothing to wait for at the start of a command."""
    gone, never = Admin(start=KafkaConnectionError("unable to bootstrap")), Admin()
    cluster = Coming(gone, never)
    with pytest.raises(StartRefused, match="check KAFKA_BOOTSTRAP_SERVERS"):
        async with at_start(cluster):
            pytest.fail("there is no client")
    assert gone.closed
    assert next(cluster.admins) is never


async def test_another_error_of_the_first_question_is_no_reason_to_ask_again() -> None:
    """It is told, and the client is closed."""
    refused = Admin(question=OSError("reset"))
    with pytest.raises(Retryable, match="reset"):
        async with connected(Coming(refused)):
            pytest.fail("there is no client")
    assert refused.closed
