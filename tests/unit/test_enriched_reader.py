"""What the reader of the enriched topic refuses to go on with."""

import pytest
from faust.types import TP

from processor.enriched_reader import Extent, _look
from processor.failures import Stopped
from processor.io.engagement_store import Place

PARTITION = TP("t", 3)
PLACE = Place(10, b"one")


@pytest.mark.parametrize(
    ("extent", "reason"),
    [
        (Extent(b"one", 0, 9), "ends at 9: the topic was created again"),
        (Extent(b"two", 0, 20), "ends at 20: the topic was created again"),
        (Extent(b"one", 12, 20), "begins at 12: what was in between is lost"),
    ],
)
def test_a_place_that_the_topic_no_longer_holds_is_an_operators_matter(
    extent: Extent, reason: str
) -> None:
    """Another topic may hold as many records as the one that was counted; the line says what to do."""
    with pytest.raises(Stopped, match=f"t/3 was counted up to 10 and {reason}.*engagement_places"):
        _look(PARTITION, PLACE, extent)


@pytest.mark.parametrize("extent", [Extent(b"one", 0, 10), Extent(b"one", 10, 20)])
def test_a_place_at_either_end_of_the_topic_is_gone_on_from(extent: Extent) -> None:
    """Nothing is missing before it."""
    _look(PARTITION, PLACE, extent)
