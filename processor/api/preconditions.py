"""``ETag`` and ``If-Match``: a change that is only made to the version its author has seen."""

import re
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Request

from processor.api.errors import Refused

_TAG = re.compile(r'(?:W/)?"[^"]*"')


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def _tags(
    request: Request,
    _: Annotated[
        str | None,
        Header(alias="If-Match", description='ETags of the versions it may change, or `*`: `"3"`.'),
    ] = None,
) -> Sequence[str] | None:
    lines = request.headers.getlist("if-match")
    if not lines:
        return None
    return ["*"] if [line.strip() for line in lines] == ["*"] else _TAG.findall(", ".join(lines))


Tags: TypeAlias = Annotated[Sequence[str] | None, Depends(_tags)]
"""The entity tags of ``If-Match``; None without the header."""


def require_match(tags: Sequence[str] | None, version: int) -> None:
    """Raises `Refused` (412) unless one of the tags is that of this version; weak ones never are."""
    if tags is not None and "*" not in tags and etag(version) not in tags:
        raise Refused(412, f"If-Match: the filter has version {version} by now, {etag(version)}")
