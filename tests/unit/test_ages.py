"""A histogram that takes batches is the one of the client library, taken one by one."""

import secrets
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, Histogram

from processor import telemetry
from processor.ages import Ages

BUCKETS = (0.5, 1, 2)
AGES = st.one_of(st.sampled_from([0.0, 0.5, 1, 2]), st.floats(0, 4))


def samples(one: Ages | Histogram) -> list[tuple[str, dict[str, str], float]]:
    """Without the name, sums to the millisecond."""
    (family,) = one.collect()
    assert family.type == "histogram"
    return [(s.name[len(family.name) :], s.labels, round(s.value, 3)) for s in family.samples]


@given(st.lists(st.lists(AGES, max_size=9), max_size=5))
def test_batches_count_as_their_events_do_one_by_one(batches: Sequence[Sequence[float]]) -> None:
    """In every bucket, with number and sum."""
    name = f"test_{secrets.token_hex(6)}"
    ages, known = Ages(name, "Some.", BUCKETS), Histogram(f"{name}_known", "Some.", buckets=BUCKETS)
    for batch in batches:
        ages.observe(batch)
        for age in batch:
            known.observe(age)
    REGISTRY.unregister(ages)
    REGISTRY.unregister(known)
    assert samples(ages) == samples(known)


def test_only_records_with_a_timestamp_have_an_age_and_none_is_from_the_future() -> None:
    """Kafka may hold records without one, and producers' clocks may be ahead."""
    before = {(name, str(labels)): value for name, labels, value in samples(published())}
    telemetry.published([None, -1, 1 << 50])
    after = {(name, str(labels)): value for name, labels, value in samples(published())}
    changed = {key: after[key] - before[key] for key in after}
    assert set(changed.values()) == {0, 1}
    assert changed["_count", "{}"] == 1
    assert changed["_sum", "{}"] == 0


def published() -> Ages:
    """The one that is declared."""
    return telemetry.PUBLISHED_SECONDS
