"""Parts of a path."""

from starlette.convertors import Convertor, register_url_convertor


class _Lead(Convertor[str]):
    """A lead id: any characters at all, slashes and line breaks included."""

    regex = r"(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("lead", _Lead())
LEAD = "{lead_id:lead}"
"""In a route: whatever is left of the path."""
