"""What OpenAPI says of an operation: its answers with examples, its errors, and the body it reads by itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from processor.api.errors import CODES, ErrorAnswer

_EXAMPLES: Mapping[int, str] = {
    400: "limit: Input should be less than or equal to 100",
    401: "Check authentication token",
    403: "The token lacks the scope events:read",
    404: "There is nothing at this address",
    409: "It is in the way of what is there",
    412: "It has been changed since",
    413: "The body has more than 2097152 bytes",
    415: "The body must be application/json",
    503: "postgres is away; try again",
}
_ALWAYS = (401, 403, 503)


def documented(  # noqa: PLR0913 - keywords of a table, all but one optional
    answer: type[BaseModel] | None,
    example: Any,
    *,
    status: int = 200,
    errors: Iterable[int] = (),
    body: type[BaseModel] | None = None,
    body_example: Any = None,
) -> dict[str, Any]:
    """Keyword arguments of a route: a success with its example, and how it may fail."""
    success: dict[str, Any] = {"description": "Success"}
    if answer is not None:
        success |= {"model": answer, "content": {"application/json": {"example": example}}}
    responses = {status: success} | {code: _error(code) for code in sorted({*_ALWAYS, *errors})}
    said: dict[str, Any] = {"status_code": status, "response_model": None, "responses": responses}
    if body is not None:
        said["openapi_extra"] = taking(body.model_json_schema(), body_example)
    return said


def _error(status: int) -> dict[str, Any]:
    example = {"error": {"code": CODES[status], "message": _EXAMPLES[status]}}
    return {
        "model": ErrorAnswer,
        "description": CODES[status],
        "content": {"application/json": {"example": example}},
    }


def taking(schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    """The body of an operation that reads it by itself."""
    content = {"schema": _inlined(schema, schema.get("$defs", {})), "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema without references: those of a model lead nowhere once it stands inside of a document."""
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].removeprefix("#/$defs/")], definitions)
    kept = {name: value for name, value in part.items() if name not in {"$defs", "discriminator"}}
    return {name: _inlined(value, definitions) for name, value in kept.items()}
