"""Requests of listings, a kind each, at random within their kind."""

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tests.load.fill import HOT_LEAD

RANGES = ("today", "yesterday", "last_7d", "last_30d", "last_90d")
TYPES = ("Page View", "Email Open", "Form Submit", "Rare")
REASONS = ("none", "any", "inorganic", "inorganic_grouped", "metadata_filter")
Asking = Callable[[random.Random, int], Mapping[str, Any]]
"""Query parameters, given how many events there are."""


def _first(_: random.Random, __: int) -> Mapping[str, Any]:
    return {"page": 1}


def _deep(_: random.Random, __: int) -> Mapping[str, Any]:
    return {"page": 40_000}


def _last(_: random.Random, events: int) -> Mapping[str, Any]:
    return {"page": events // 25}


def _any_page(chance: random.Random, events: int) -> Mapping[str, Any]:
    limit = chance.choice((1, 25, 100))
    return {"page": chance.randint(1, max(1, events // limit)), "limit": limit}


def _range(chance: random.Random, _: int) -> Mapping[str, Any]:
    return {"range": chance.choice(RANGES), "page": chance.choice((1, 2, 100, 10_000))}


def _combination(chance: random.Random, events: int) -> Mapping[str, Any]:
    asked: dict[str, Any] = {"page": chance.choice((1, 2, 40, chance.randint(1, events // 25)))}
    if chance.random() < 0.7:
        asked["event_type"] = chance.choice(TYPES)
    if chance.random() < 0.7:
        asked["suppression_reason"] = chance.choice(REASONS)
    if chance.random() < 0.5:
        asked["range"] = chance.choice(RANGES)
    return asked


def _sparse(chance: random.Random, _: int) -> Mapping[str, Any]:
    asked = {"event_type": "Rare"}
    if chance.random() < 0.5:
        asked = {"suppression_reason": "metadata_filter", "event_type": chance.choice(TYPES)}
    return {**asked, "page": chance.randint(1, 60)}


def _lead(chance: random.Random, events: int) -> Mapping[str, Any]:
    return {"lead_id": HOT_LEAD, "page": chance.randint(1, max(1, events // 50 // 25))}


def _lead_combination(chance: random.Random, events: int) -> Mapping[str, Any]:
    return {**_combination(chance, events // 50), "lead_id": HOT_LEAD}


def _small_lead(chance: random.Random, _: int) -> Mapping[str, Any]:
    return {"lead_id": f"ld_{chance.randrange(200_000)}"}


KINDS: Mapping[str, Asking] = {
    "first page": _first,
    "page 40,000": _deep,
    "last page": _last,
    "any page, limit 1 to 100": _any_page,
    "a range": _range,
    "any combination": _combination,
    "a rare type or reason": _sparse,
    "a lead of 2 % of the events": _lead,
    "that lead, any combination": _lead_combination,
    "an ordinary lead": _small_lead,
}


async def timed(client: httpx.AsyncClient, asked: Mapping[str, Any]) -> float:
    """Milliseconds until the whole answer is there; it is checked for shape."""
    began = time.perf_counter()
    answer = await client.get("/events", params=dict(asked))
    took = (time.perf_counter() - began) * 1000
    assert answer.status_code == 200, (asked, answer.text)
    body = answer.json()
    assert len(body["events"]) == expected_size(body), (asked, body["total"])
    return took


def expected_size(body: Mapping[str, Any]) -> int:
    """How many events the page has, by its own numbers."""
    page, limit, total = (int(body[name]) for name in ("page", "limit", "total"))
    return max(0, min(limit, total - (page - 1) * limit))
