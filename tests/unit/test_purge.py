"""Which horizon a purge accepts."""

import pytest

from processor.pure.purge import Limits, Widest, cutoff, refusal

DAY = 86_400_000
HOUR = 3_600_000
WEEK = {"retention.ms": str(7 * DAY), "cleanup.policy": "delete"}
DAY_LONG = {"retention.ms": str(DAY), "cleanup.policy": "delete"}
MONTH = Widest("acme", "vf-1", 30 * DAY)


def limits(
    configs: dict[str, str] = WEEK,
    widest: Widest | None = None,
    *,
    merges: dict[str, str] = DAY_LONG,
    surge: int = 1,
) -> Limits:
    """With an hour for late events."""
    return Limits({"events.raw": configs, "leads.merges": merges}, widest, HOUR, surge)


@pytest.mark.parametrize("horizon", [1, 6 * DAY, 7 * DAY])
def test_what_kafka_may_still_hold_stays(horizon: int) -> None:
    """A redelivery would bring it back."""
    said = refusal(horizon, limits())
    assert said
    assert "events.raw keeps messages for 7d (retention.ms)" in said
    assert refusal(7 * DAY + 1, limits()) is None


@pytest.mark.parametrize("more", [{"retention.ms": "-1"}, {"cleanup.policy": "compact"}])
def test_what_kafka_keeps_for_ever_is_never_purged(more: dict[str, str]) -> None:
    """The line says what to set."""
    said = refusal(3_650 * DAY, limits(WEEK | more))
    assert said
    assert "set retention.ms and cleanup.policy=delete of events.raw first" in said


def test_rows_of_merges_come_from_a_topic_of_their_own() -> None:
    """Whichever input keeps messages longer decides, and the line names it."""
    longer = {"retention.ms": str(9 * DAY), "cleanup.policy": "delete"}
    said = refusal(8 * DAY, limits(merges=longer))
    assert said
    assert "leads.merges keeps messages for 9d (retention.ms)" in said
    assert refusal(9 * DAY + 1, limits(merges=longer)) is None
    said = refusal(3_650 * DAY, limits(merges=longer | {"retention.ms": "-1"}))
    assert said
    assert "set retention.ms and cleanup.policy=delete of leads.merges first" in said


def test_what_a_surge_is_made_of_stays() -> None:
    """Its window and what lateness leaves."""
    said = refusal(10 * DAY, limits(surge=10 * DAY))
    assert said
    assert said.endswith("10d (SURGE_WINDOW) + 1h (ALLOWED_LATENESS) back; choose at least 241h")
    assert refusal(10 * DAY + HOUR, limits(surge=10 * DAY)) is None


def test_what_a_filter_may_look_at_stays() -> None:
    """Twice its window and what lateness leaves; the line names the filter."""
    needed = 60 * DAY + HOUR
    said = refusal(needed - 1, limits(widest=MONTH))
    assert said
    assert "filter vf-1 of acme" in said
    assert said.endswith("choose at least 1441h")
    assert refusal(needed, limits(widest=MONTH)) is None


def test_a_horizon_counts_from_what_is_not_processed_yet() -> None:
    """Workers that were away for a week still find the past of what waits for them."""
    assert cutoff(1000, None, 10) == 990
    assert cutoff(1000, 500, 10) == 490
    assert cutoff(1000, 2000, 10) == 990
