"""Who waits for what: one line when it begins, one when it is over."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from processor.failures import Retryable
from processor.waits import Waits

REDIS = Retryable("redis", "refused")
KAFKA = Retryable("kafka", "no answer")


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_line_is_logged_for_a_dependency_however_many_wait_for_it() -> None:
    """And one when the last of them goes on."""
    clock = Clock()
    waits = Waits(clock)
    with capture_logs() as lines:
        for waiter in (1, 2, 1):
            waits.begin(waiter, REDIS)
        clock.now = 2.5
        assert waits.away == {"redis": 2.5}
        waits.over(1)
        waits.over(2)
    assert [line["event"] for line in lines] == ["dependency_away", "dependency_back"]
    assert lines[0]["reason"] == "refused"
    assert lines[1]["seconds"] == 2.5
    assert waits.away == {}


def test_a_waiter_waits_for_one_dependency_at_a_time() -> None:
    """What it waited for before has answered."""
    waits = Waits(Clock())
    waits.begin(1, REDIS)
    waits.begin(1, KAFKA)
    assert set(waits.away) == {"kafka"}
    assert 1 in waits
    waits.over(1)
    waits.over(1)
    assert 1 not in waits


def told(name: str) -> float:
    """What a metric says of Redis."""
    found = REGISTRY.get_sample_value(name, {"dependency": "redis"})
    assert found is not None
    return found


def test_metrics_tell_who_waits_and_for_how_long_while_they_do() -> None:
    """Each time one of them tries again: an outage shows before it is over."""
    clock = Clock()
    waits = Waits(clock)
    waiting, seconds = told("processor_waiting"), told("processor_waiting_seconds_total")
    waits.begin(1, REDIS)
    waits.begin(2, REDIS)
    assert told("processor_waiting") == waiting + 2
    clock.now = 5
    waits.begin(1, REDIS)
    assert told("processor_waiting_seconds_total") == seconds + 5
    clock.now = 7
    waits.over(1)
    waits.over(2)
    assert told("processor_waiting_seconds_total") == seconds + 14
    assert told("processor_waiting") == waiting
