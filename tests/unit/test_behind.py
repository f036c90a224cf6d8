"""How far behind a lane is: its lag, and an age that grows for as long as nothing is done."""

import time

from prometheus_client import REGISTRY

from processor.behind import Behind
from processor.io.kafka import Partition

HERE = Partition("behind", 3)
HOUR_MS = 3_600_000


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def told(name: str) -> float | None:
    """What a metric says of the partition."""
    labels = {"topic": HERE.topic, "partition": str(HERE.partition)}
    return REGISTRY.get_sample_value(name, labels)


def lag() -> float | None:
    """Records that are not committed."""
    return told("processor_lag_records")


def ago(ms: int) -> int:
    """The time so many milliseconds before now."""
    return time.time_ns() // 1_000_000 - ms


def age() -> float:
    """Seconds, to the minute: the clock is the real one."""
    found = told("processor_oldest_unprocessed_seconds")
    assert found is not None
    return found // 60 * 60


def test_the_first_record_in_hand_has_the_age() -> None:
    """Until all is committed."""
    behind = Behind(HERE)
    behind.at(4)
    behind.holds(ago(HOUR_MS))
    behind.tell(2)
    assert (lag(), age()) == (2, 3600)
    behind.at(5)
    behind.holds(ago(HOUR_MS // 2))
    behind.tell(1)
    assert (lag(), age()) == (1, 1800)
    behind.at(6)
    behind.tell(0)
    assert (lag(), age()) == (0, 0)
    behind.end()


def test_what_is_no_longer_in_hand_keeps_its_age_until_it_is_committed() -> None:
    """A lane that begins again, or is stopped, has let go of it; so it is while nobody knows the lag."""
    behind = Behind(HERE)
    behind.at(4)
    behind.holds(ago(HOUR_MS))
    behind.holds(None)
    behind.at(4)
    behind.tell(2)
    behind.tell(None)
    assert (lag(), age()) == (2, 3600)
    behind.end()


def test_what_was_never_read_is_as_old_as_it_is_known_of() -> None:
    """An offset that is no longer in the log, say; a record without a timestamp has no other age."""
    clock = Clock()
    behind = Behind(HERE, clock)
    behind.at(4)
    behind.holds(-1)
    behind.tell(2)
    clock.now = 300
    behind.tell(None)
    assert age() == 300
    behind.tell(0)
    assert age() == 0
    clock.now = 400
    behind.tell(1)
    assert age() == 0
    behind.end()


def test_nothing_is_told_before_a_lane_has_its_place_nor_after_its_end() -> None:
    """The worker that had the partition before, or has it next, tells."""
    behind = Behind(HERE)
    behind.tell(7)
    assert lag() is None
    behind.at(4)
    behind.tell(7)
    assert lag() == 7
    behind.end()
    behind.tell(7)
    assert (lag(), told("processor_oldest_unprocessed_seconds")) == (None, None)
