"""Text from outside where a person reads it: on one line, and without what a terminal would obey."""


def shown(text: str) -> str:
    r"""The same with an escape, such as ``\x1b``, for each character that is no print: controls, line breaks, directions of writing."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
