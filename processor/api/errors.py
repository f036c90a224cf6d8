"""What an answer looks like when it is no success: ``{"error": {"code", "message"}}``, whatever went wrong.

::

    400 bad_request    a parameter or the body breaks a rule; the message names it
    401 unauthorized   no token, or none that is in force
    403 forbidden      the token lacks a scope
    404 not_found      405 method_not_allowed      409 conflict      412 precondition_failed
    413 too_large      415 unsupported_media_type
    500 internal       a defect; the log has it
    503 unavailable    Postgres or Kafka is away, or too much is under way; try again after Retry-After seconds
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TypeAlias

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from processor.api.answers import json
from processor.failures import Retryable
from processor.io import filters, postgres
from processor.io.producing import TooLargeError

log = structlog.get_logger(__name__)

RETRY_AFTER_S = "2"
LONGEST_MESSAGE = 1_000
CODES: Mapping[int, str] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal",
    503: "unavailable",
}
_MESSAGES: Mapping[int, str] = {
    404: "There is nothing at this address",
    405: "This address has no such method",
}


Answered: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class Refused(Exception):
    """A request is answered with an error; `message` is a sentence that names what is at fault."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def answer(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer of an error."""
    # A message may repeat a name that came in: lone surrogates have no UTF-8, and nobody reads a megabyte.
    shown = message[:LONGEST_MESSAGE].encode(errors="replace").decode()
    return json({"error": {"code": CODES[status], "message": shown}}, status, headers)


def install(app: FastAPI) -> None:
    """Every failure of the app is answered so."""
    for kind, answered in _ANSWERS.items():
        app.add_exception_handler(kind, _freed(answered))
    app.add_exception_handler(Exception, _defect)


def _freed(answered: Answered) -> Answered:
    """A failure is answered while it is handled: what its frames hold, a body for one, would be there until the client has read."""

    async def handler(request: Request, error: Exception) -> Response:
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return await answered(request, error)

    return handler


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - as registered
    return answer(error.status, error.message, error.headers)


async def _unavailable(_: Request, error: Exception) -> Response:
    assert isinstance(error, Retryable)  # noqa: S101
    log.warning("dependency_away", dependency=error.dependency, reason=error.reason)
    return answer(503, f"{error.dependency} is away; try again", {"Retry-After": RETRY_AFTER_S})


async def _too_large(_: Request, error: Exception) -> Response:
    return answer(413, f"A topic does not take a message of this size: {error}")


async def _too_many_conditions(_: Request, error: Exception) -> Response:
    return answer(409, str(error))


async def _too_much(_: Request, error: Exception) -> Response:
    return answer(400, f"limit: a page of so many has {error}; ask for fewer")


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    fault = error.errors()[0]
    place = ".".join(str(step) for step in fault["loc"][1:])
    return answer(400, f"{place}: {fault['msg']}")


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = error.status_code if error.status_code in CODES else 400
    message = _MESSAGES.get(status) or HTTPStatus(error.status_code).phrase
    return answer(status, message, error.headers)


_ANSWERS: Mapping[type[Exception], Answered] = {
    Refused: _refused,
    Retryable: _unavailable,
    TooLargeError: _too_large,
    filters.TooMuch: _too_many_conditions,
    postgres.TooMuch: _too_much,
    RequestValidationError: _invalid,
    HTTPException: _http,
}


async def _defect(request: Request, error: Exception) -> Response:
    log.error("request_failed", method=request.method, exc_info=error)
    return answer(500, "Something is broken here; the log of the server has it")
