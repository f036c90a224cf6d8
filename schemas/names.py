"""Names as they are stored: the one spelling of an event type."""

import re

_SEPARATORS = re.compile(r"[\s_\-]+")


def normalise_event_type(text: str) -> str:
    """`text` as Title Case words: ``page_view`` is ``Page View``; empty where nothing is left."""
    return " ".join(word.capitalize() for word in _SEPARATORS.split(text) if word)
