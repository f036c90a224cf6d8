"""Bodies: read after the token and its scope are checked, never more of them than is allowed, and only as JSON."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from processor.api.errors import Refused
from processor.api.held import HOLD
from processor.pure import jsontext
from processor.pure.faults import Fault

LARGEST = 2 << 20
"""Bytes."""
DEEPEST, MOST_KEYS, MOST_VALUES = 64, 1_000, 30_000
"""Levels, keys and values of a body that is no event.  The largest filter has some 20,000 values; each costs a hundred bytes."""
LARGE = 64 << 10
"""Bytes of a body that is judged beside the event loop, which it would hold up: others are answered meanwhile."""
_judges = ThreadPoolExecutor(1, "bodies")

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


async def read(request: Request) -> bytes:
    """The whole body; raises `Refused` before it has more than `LARGEST` of it, or all requests have more than they may."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise Refused(415, "The body must be application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "The body must not be compressed")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > LARGEST:
        raise _too_large()
    body, hold = bytearray(), request.scope["state"][HOLD]
    try:
        async for part in request.stream():
            if len(body) + len(part) > LARGEST:
                raise _too_large()
            hold(len(part))
            body += part
    except ClientDisconnect as error:  # nobody is there to be told, and nothing is wrong here
        raise Refused(400, "The body is not complete") from error
    return bytes(body)


async def judged(
    body: bytes, judge: Callable[[bytes], T], judges: ThreadPoolExecutor = _judges
) -> T:
    """What `judge` makes of a body, of a `LARGE` one in its turn at one of the threads; raises what it raises."""
    if len(body) <= LARGE:
        return judge(body)
    return await asyncio.get_running_loop().run_in_executor(judges, judge, body)


async def small(request: Request) -> Any:
    """The body as JSON, as `decoded` has it; raises `Refused`."""
    return await judged(await read(request), decoded)


def decoded(body: bytes) -> Any:
    """A body as JSON within `DEEPEST`, `MOST_KEYS` and `MOST_VALUES`; raises `Refused`."""
    if jsontext.numerous(body, MOST_VALUES):
        raise Refused(400, f"The body has more than {MOST_VALUES} values")
    value = jsontext.decode(body)
    if isinstance(value, Fault):
        raise Refused(400, f"The body is not valid: {value.reason}")
    levels, keys = jsontext.size(value)
    if levels > DEEPEST:
        raise Refused(400, f"The body is nested deeper than {DEEPEST} levels")
    if keys > MOST_KEYS:
        raise Refused(400, f"The body has more than {MOST_KEYS} keys")
    return value


async def model(request: Request, kind: type[M]) -> M:
    """The body as a model; raises `Refused` naming the field at fault."""
    return validated(await small(request), kind)


def validated(value: Any, kind: type[M]) -> M:
    """A decoded body as a model; raises `Refused` naming the field at fault."""
    if not isinstance(value, dict):
        raise Refused(400, "The body must be a JSON object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in fault["loc"])
        text = str(fault["msg"]).removeprefix("Value error, ")
        raise Refused(400, f"{place}: {text}" if place else text) from error


def _too_large() -> Refused:
    return Refused(413, f"The body has more than {LARGEST} bytes")
