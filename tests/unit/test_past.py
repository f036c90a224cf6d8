"""The fold over what is older than a filter, against one that forgets nothing."""

from hypothesis import given
from hypothesis import strategies as st

from processor.pure.past import Exceeding, Fold
from processor.pure.types import VelocityFilter

TIMES = st.lists(st.integers(-40, 400), max_size=60)
WIDTHS = st.integers(1, 60)
THRESHOLDS = st.integers(0, 4)


def keep_first(threshold: int, width: int) -> VelocityFilter:
    """A filter of which only these two matter."""
    return VelocityFilter("vf", "Bursts", 1, "Page View", threshold, width, True, 2, 1_000)


def whole_fold(times: list[int], threshold: int, width: int) -> list[Exceeding]:
    """Every exceeding event, ascending, by looking at all that came before."""
    found: list[Exceeding] = []
    for n, at in enumerate(times):
        if sum(at - width < other <= at for other in times[: n + 1]) <= threshold:
            continue
        near = [fact for fact in sorted(found) if abs(fact[0] - at) < width]
        found.append((at, f"e{n:03}", near[0][2] if near else f"e{n:03}"))
    return sorted(found)


def folded(times: list[int], threshold: int, width: int, part: int = 7) -> list[Exceeding]:
    """What the product folds, part by part."""
    fold = Fold(keep_first(threshold, width))
    events = [(at, f"e{n:03}") for n, at in enumerate(times)]
    for first in range(0, len(events), part):
        fold.add(events[first : first + part])
    return list(fold.exceeding)


def ends(times: list[int], width: int) -> list[int]:
    """Of each slice the first and the last."""
    slices: dict[int, list[int]] = {}
    for at in times:
        slices.setdefault(at // width, []).append(at)
    return sorted(
        at for own in slices.values() for at in ([min(own), max(own)] if own[1:] else own)
    )


@given(TIMES, THRESHOLDS, WIDTHS)
def test_of_each_slice_the_first_and_last_exceeding_event_is_remembered(
    times: list[int], threshold: int, width: int
) -> None:
    """In whatever order the events came."""
    whole = [at for at, _, _ in whole_fold(times, threshold, width)]
    assert [at for at, _, _ in folded(times, threshold, width)] == ends(whole, width)


@given(TIMES, THRESHOLDS, WIDTHS)
def test_events_in_the_order_of_time_belong_to_the_bursts_that_a_whole_past_gives_them(
    times: list[int], threshold: int, width: int
) -> None:
    """Less than a window around an event there is one burst then, whoever of it is asked."""
    times.sort()
    bursts = {event_id: burst for _, event_id, burst in whole_fold(times, threshold, width)}
    for _, event_id, burst in folded(times, threshold, width):
        assert burst == bursts[event_id]


@given(TIMES, THRESHOLDS, WIDTHS)
def test_an_event_is_near_to_what_is_remembered_when_it_is_near_to_anything(
    times: list[int], threshold: int, width: int
) -> None:
    """So a verdict does not notice what was forgotten."""
    whole = [at for at, _, _ in whole_fold(times, threshold, width)]
    held = [at for at, _, _ in folded(times, threshold, width)]
    for at in range(-100, 460):
        near = any(abs(other - at) < width for other in whole)
        assert near == any(abs(other - at) < width for other in held)
