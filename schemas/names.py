"""Names as they are stored: the one spelling of an event type."""

import re
import sys
from collections.abc import Mapping
from functools import cache

SENT, STORED = 128, 384
"""Most characters of an event type as it is sent, and as it is stored: title case may make three of one."""
_SEPARATORS = re.compile(r"[\s_\-]+")


def normalise_event_type(text: str) -> str:
    """`text` as Title Case words: ``page_view`` is ``Page View``; empty where nothing is left."""
    return " ".join(word.capitalize() for word in _SEPARATORS.split(text) if word)


def spelling(stored: str) -> str:
    """A text that may be sent and that normalises to `stored`: nearly always that itself.

    Title case may have made it too long to be sent (``ß`` is stored as ``Ss``), or one that normalises to another (``ŉ`` is stored
    as ``ʼN``, and that as ``ʼn``).  What no event type is stored as is its own spelling.
    """
    if len(stored) > STORED or (len(stored) <= SENT and normalise_event_type(stored) == stored):
        return stored
    text = " ".join(_shortest(word) for word in stored.split(" "))
    return text if normalise_event_type(text) == stored else stored


def stored_name(text: str) -> str:
    """The stored name that `text` means: as it is where it is one already, else normalised."""
    normalised = normalise_event_type(text)
    is_one = normalised == text or normalise_event_type(spelling(text)) == text
    return text if is_one else normalised


def _shortest(word: str) -> str:
    made = _made_longer()
    rest = word[1:].replace("i\u0307", "İ")
    for length in (3, 2):
        if word[:length] in made:
            return made[word[:length]] + word[length:].replace("i\u0307", "İ")
    return word[:1] + rest


@cache
def _made_longer() -> Mapping[str, str]:
    """The characters of which title case makes more than one, by what it makes."""
    characters = map(chr, range(sys.maxunicode + 1))
    return {made: one for one in characters if len(made := one.capitalize()) > 1}
