"""What ``/openapi.json`` says beyond what FastAPI makes of the routes by itself."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

_OURS_ARE_400 = ("HTTPValidationError", "ValidationError")
_JSON = "application/json"


def install(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """The app describes itself so."""
    app.openapi = _once(lambda: _described(app, routers))  # type: ignore[method-assign]


def for_viewer(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document in OpenAPI 3.0: types that may be null are spelt otherwise there."""
    older: dict[str, Any] = _older(copy.deepcopy(dict(document)))
    return {**older, "openapi": "3.0.3"}


def _once(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def known() -> dict[str, Any]:
        if not made:
            made.append(make())
        return made[0]

    return known


def _described(app: FastAPI, routers: Iterable[APIRouter]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for name in _OURS_ARE_400:
        schemas.pop(name, None)
    for operation in _operations(document):
        operation["responses"].pop("422", None)
        content = operation.get("requestBody", {}).get("content", {}).get(_JSON, {})
        if "schema" in content:
            content["schema"] = _hoisted(content["schema"], schemas)
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                _exemplify(document["paths"][route.path_format], route)
    return document


def _operations(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def _hoisted(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A schema whose definitions are the document's: its references are looked up from there."""
    inner = schema.pop("$defs", {})
    for name, definition in inner.items():
        schemas.setdefault(name, _referring(definition))
    return _referring(schema)


def _referring(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: inner.replace("#/$defs/", "#/components/schemas/")
            if key in ("$ref", "propertyName") and isinstance(inner, str)
            else _referring(inner)
            for key, inner in value.items()
        }
    return [_referring(one) for one in value] if isinstance(value, list) else value


def _exemplify(item: Mapping[str, Any], route: APIRoute) -> None:
    """The examples as they were given: FastAPI leaves out what is null in them."""
    for method in route.methods or ():
        operation = item[method.lower()]
        for status, response in route.responses.items():
            _put(operation["responses"][str(status)], response)
        extra = (route.openapi_extra or {}).get("requestBody")
        if extra:
            _put(operation["requestBody"], extra)


def _put(described: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for kind, content in given.get("content", {}).items():
        for key in ("example", "examples"):
            if key in content:
                described["content"][kind][key] = content[key]


def _older(value: Any) -> Any:
    if isinstance(value, list):
        return [_older(one) for one in value]
    if not isinstance(value, dict):
        return value
    older = {
        key: inner if key.startswith("example") else _older(inner) for key, inner in value.items()
    }
    older |= _constant(older)
    choices = older.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        older["anyOf"] = [one for one in choices if one != {"type": "null"}]
        older["nullable"] = True
        if len(older["anyOf"]) == 1:
            older |= {**older.pop("anyOf")[0], **older}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(older.get(exclusive), int | float) and not isinstance(older[exclusive], bool):
            older[bound], older[exclusive] = older[exclusive], True
    return older


def _constant(older: dict[str, Any]) -> dict[str, Any]:
    """What 3.0 says of a value that can be but one; the null beside other choices is not meant."""
    if older.get("type") == "null" and len(older) > 1:
        return {"type": "string", "nullable": True, "enum": [None]}
    return {"enum": [older.pop("const")]} if "const" in older else {}
