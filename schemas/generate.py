"""The documents made from the models: a JSON Schema of each, and one AsyncAPI document of the topics."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas import filters, messages, rows
from schemas.examples import EXAMPLES

DIRECTORY = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLISHED: Sequence[type[BaseModel]] = (
    messages.RawEvent,
    messages.MergeCommand,
    messages.EnrichedEvent,
    messages.EnrichedHeaders,
    messages.LeadMergedMetadata,
    messages.DeadLetter,
    messages.ReplayHeaders,
    messages.EngagementEvent,
    filters.VelocityFilter,
    filters.MetadataFilter,
    filters.FilterFile,
    rows.EventRow,
    rows.LeadRedirectRow,
)


class Topic(Struct, frozen=True):
    """A topic as the AsyncAPI document shows it."""

    channel: str
    address: str
    message: type[BaseModel]
    key: str
    action: str
    """What the worker does: receive or send."""
    summary: str
    headers: type[BaseModel] | None = None


TOPICS = (
    Topic(
        "raw",
        "events.raw",
        messages.RawEvent,
        "lead_id",
        "receive",
        "Producers say what a lead did.",
        messages.ReplayHeaders,
    ),
    Topic(
        "merges",
        "leads.merges",
        messages.MergeCommand,
        "org_unit",
        "receive",
        "Leads become one, or a merge is taken back.",
        messages.ReplayHeaders,
    ),
    Topic(
        "enriched",
        "events.enriched",
        messages.EnrichedEvent,
        "lead_id of the surviving lead",
        "send",
        "Every accepted event with its verdict.",
        messages.EnrichedHeaders,
    ),
    Topic(
        "dead",
        "events.dead",
        messages.DeadLetter,
        "as the input",
        "send",
        "Messages that could not be processed, with the input's headers.",
    ),
    Topic(
        "engagement",
        "leads.engagement",
        messages.EngagementEvent,
        "lead_id",
        "send",
        "What the engagement service finds about a lead.",
    ),
)


def documents() -> Mapping[Path, str]:
    """Every generated file with its text."""
    files = {
        DIRECTORY / "generated" / f"{model.__name__}.json": _json_schema(model)
        for model in PUBLISHED
    }
    found = {DIRECTORY / "asyncapi.json": _asyncapi(), **files}
    return {path: json.dumps(document, indent=2) + "\n" for path, document in found.items()}


def _json_schema(model: type[BaseModel]) -> Mapping[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    examples = {"examples": EXAMPLES[model.__name__]} if model.__name__ in EXAMPLES else {}
    return {"$schema": DIALECT, **schema, **examples}


def _asyncapi() -> Mapping[str, Any]:
    models = {model for topic in TOPICS for model in (topic.message, topic.headers) if model}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Event processor",
            "version": str(messages.SCHEMA_VERSION),
            "description": "What goes in and out of the processor on Kafka.  Topic names are settings.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.channel: _channel(topic) for topic in TOPICS},
        "operations": {f"{topic.action}_{topic.channel}": _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {topic.message.__name__: _message(topic) for topic in TOPICS},
            "schemas": schemas["$defs"],
        },
    }


def _channel(topic: Topic) -> Mapping[str, Any]:
    name = topic.message.__name__
    return {
        "address": topic.address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _operation(topic: Topic) -> Mapping[str, Any]:
    name = topic.message.__name__
    return {
        "action": topic.action,
        "channel": {"$ref": f"#/channels/{topic.channel}"},
        "summary": topic.summary,
        "messages": [{"$ref": f"#/channels/{topic.channel}/messages/{name}"}],
    }


def _message(topic: Topic) -> Mapping[str, Any]:
    name = topic.message.__name__
    headers = {}
    if topic.headers:
        headers = {"headers": {"$ref": f"#/components/schemas/{topic.headers.__name__}"}}
    return {
        "name": name,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        **headers,
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}}},
        "examples": [{"payload": example} for example in EXAMPLES[name]],
    }
