"""What the reader of the enriched topic refuses to go on with."""

import pytest
from faust.types import TP

from processor.enriched_reader import _look
from processor.failures import Stopped


def test_a_topic_that_was_created_again_is_not_counted_from_the_middle() -> None:
    """It ends before the place; one that has forgotten old records is read from what is left."""
    with pytest.raises(Stopped, match=r"t/3 was counted up to 10 and ends at 9.*engagement_places"):
        _look(TP("t", 3), 10, 0, 9)
    _look(TP("t", 3), 10, 0, 10)
    _look(TP("t", 3), 10, 12, 20)
