"""What a coordinator's answer says of a group's offset, and what it does not say."""

from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3

from processor.io.kafka import Partition
from processor.io.kafka_committed import StableResponse, UnstableOffsetError, said

PARTITION = Partition("events.raw", 3)


def stable(offset: int, *, group: int = 0, partition: int = 0) -> dict[str, Any]:
    """An answer of a broker of today, with error codes for the group and for the partition."""
    whole: list[object] = [("events.raw", [(3, offset, -1, "", partition, {})], {})]
    found: dict[str, Any] = StableResponse(0, whole, group, {}).to_object()
    return found


def test_an_offset_is_what_is_committed() -> None:
    """It may be 0."""
    assert said(stable(17), PARTITION) == (17, False)
    assert said(stable(0), PARTITION) == (0, False)


def test_a_group_without_an_offset_has_none() -> None:
    """The coordinator says so itself."""
    assert said(stable(-1), PARTITION) == (None, False)


@pytest.mark.parametrize(
    "answer", [OffsetFetchResponse_v3(0, [], 14), StableResponse(0, [], 14, {})]
)
def test_a_coordinator_that_still_loads_says_nothing_of_offsets(answer: Any) -> None:
    """Its answer names no partition, and is no proof that nothing is committed."""
    with pytest.raises(GroupLoadInProgressError):
        said(answer.to_object(), PARTITION)


def test_an_answer_without_the_partition_says_nothing_of_it() -> None:
    """Whatever the reason."""
    with pytest.raises(GroupLoadInProgressError, match="leaves out"):
        said(stable(17), Partition("events.raw", 4))


def test_an_offset_that_a_transaction_is_about_to_change_is_none_yet() -> None:
    """The end of the transaction is awaited, and missed where it does not come."""
    with pytest.raises(UnstableOffsetError, match="about to end"):
        said(stable(-1, partition=88), PARTITION)


def test_other_errors_are_raised_as_they_are() -> None:
    """Of the group, and of a partition, where old brokers put those of the group too."""
    with pytest.raises(GroupAuthorizationFailedError):
        said(stable(17, group=30), PARTITION)
    old = OffsetFetchResponse_v1([("events.raw", [(3, -1, "", 16)])])
    with pytest.raises(NotCoordinatorForGroupError):
        said(old.to_object(), PARTITION)
