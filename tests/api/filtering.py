"""Filters as tests send them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from tests.api.client import Api

VELOCITY: dict[str, Any] = {
    "name": "Bursts",
    "event_type": "page_view",
    "threshold": 3,
    "window_ms": 1000,
}
CONDITIONS = [
    {"key": "k", "operator": "equals", "value": 1.0},
    {"key": "k", "operator": "not_equals", "value": True},
    {"key": "k", "operator": "contains", "value": "x"},
    {"key": "k", "operator": "not_contains", "value": "x"},
    {"key": "k", "operator": "starts_with", "value": "x"},
    {"key": "k", "operator": "ends_with", "value": "x"},
    {"key": "k", "operator": "exists"},
    {"key": "k", "operator": "not_exists"},
    {"key": "k", "operator": "in", "value": ["x", 1, 2.5, False, 2**64 - 1]},
    {"key": "k", "operator": "gt", "value": "1e3"},
    {"key": "k", "operator": "lt", "value": -0.5},
    {"key": "k", "operator": "matches", "value": "^bot|crawl"},
    {"key": "k", "operator": "in_cidr", "value": ["10.0.0.1/8", "::1"]},
]
METADATA: dict[str, Any] = {"name": "Bots", "conditions": CONDITIONS}
BODIES: Mapping[str, dict[str, Any]] = {
    "/velocity-filters": VELOCITY,
    "/metadata-filters": METADATA,
}


def both(test: Callable[[Api, str], Awaitable[None]]) -> Callable[[Api], Awaitable[None]]:
    """A test of velocity filters, and then of metadata filters on the emptied tables."""

    async def tested(api: Api) -> None:
        for path in BODIES:
            await api.database.execute("DELETE FROM filters; DELETE FROM filter_versions")
            await test(api, path)

    tested.__doc__ = test.__doc__
    return tested


async def made(api: Api, path: str, **more: Any) -> dict[str, Any]:
    """A new filter."""
    answer = await api.client.post(path, json={**BODIES[path], **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx.Response, status: int) -> str:
    """The message of an error."""
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message
