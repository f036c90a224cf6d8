"""Where the reader of the enriched topic stands, and what it refuses to go on with."""

import pytest
from faust.types import TP

from processor.enriched_reader import Standing, _look
from processor.failures import Stopped


@pytest.mark.parametrize(
    ("standing", "place", "lag"),
    [
        (Standing(end=0, position=0, last=-1), 0, 0),
        (Standing(end=10, position=10, last=9), 10, 0),
        (Standing(end=11, position=11, last=9), 10, 0),  # the last offset is a transaction's marker
        (Standing(end=11, position=11, last=9), 7, 4),  # fetched and not counted yet
        (Standing(end=30, position=11, last=9), 10, 20),
        (Standing(end=5, position=7, last=6), 7, 0),
        (Standing(end=5, position=5, last=2**63 - 1), 3, 2),
    ],
)
def test_a_partition_lags_while_a_record_is_not_counted(
    standing: Standing, place: int, lag: int
) -> None:
    """Markers behind the last record are none."""
    assert standing.lag(place) == lag


def test_a_topic_that_was_created_again_is_not_counted_from_the_middle() -> None:
    """It ends before the place; one that has forgotten old records is read from what is left."""
    with pytest.raises(Stopped, match=r"t/3 was counted up to 10 and ends at 9.*engagement_places"):
        _look(TP("t", 3), 10, 0, 9)
    _look(TP("t", 3), 10, 0, 10)
    _look(TP("t", 3), 10, 12, 20)
