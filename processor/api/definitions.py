"""Definitions of filters as bodies give them, checked by the models and in the words of the YAML file."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from processor.api.errors import Refused
from processor.io.filters import Definition
from processor.io.kept import Kind
from processor.pure.attributes import compile_conditions
from schemas import MetadataDefinition, VelocityDefinition, mistakes

MODELS: Mapping[Kind, type[VelocityDefinition] | type[MetadataDefinition]] = {
    "velocity": VelocityDefinition,
    "metadata": MetadataDefinition,
}
ANSWERED = frozenset(("org_unit", "version", "changed_at", "changed_by"))
"""Fields of an answer that are nobody's to set: ignored in a body, so that an answer may be sent back."""
_checks = ThreadPoolExecutor(1, "definitions")

T = TypeVar("T")


def given(body: Any, filter_id: str | None = None) -> dict[str, Any]:
    """The fields of a body that are the filter's; raises `Refused`, also where it names another id than the path."""
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object")
    fields = {name: value for name, value in body.items() if name not in ANSWERED}
    if filter_id is not None and fields.setdefault("id", filter_id) != filter_id:
        raise Refused(400, f"id: is {filter_id} in the path, and cannot be changed")
    return fields


async def checked(check: Callable[[], T]) -> T:
    """What `check` returns, beside the event loop, one at a time: compiling patterns and reading networks may take a second.

    It is given bodies as they came, since many may wait.  Raises what it raises.
    """
    return await asyncio.get_running_loop().run_in_executor(_checks, check)


def definition(kind: Kind, fields: Mapping[str, Any]) -> Definition:
    """What a filter of a kind shall be; raises `Refused` naming the first field at fault."""
    try:
        found = MODELS[kind].model_validate(fields)
    except ValidationError as error:
        place, message = mistakes.innermost(error)[0]
        text = mistakes.sentence(mistakes.fields(place), message, "the filter")
        raise Refused(400, text) from error
    if isinstance(found, MetadataDefinition):
        # What the models take and the worker cannot compile would stop every worker.
        try:
            compile_conditions(found.conditions)
        except ValueError as error:
            raise Refused(400, f"conditions: {error}") from error
    return found


def schema(model: type[BaseModel], *optional: str) -> dict[str, Any]:
    """What OpenAPI says of a body: the model's schema, with fields that may be left out of it; ``*``: every one."""
    said = model.model_json_schema()
    said["properties"] |= {name: {"description": "Ignored."} for name in sorted(ANSWERED)}
    required = [] if optional == ("*",) else [n for n in said["required"] if n not in optional]
    return {**said, "required": required} if required else _without(said, "required")


def _without(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key != name}
