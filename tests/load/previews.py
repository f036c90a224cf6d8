"""Previews of very many stored events, and what they do to ingest meanwhile."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx
from msgspec import Struct

from processor.pure.timestamps import to_text
from tests import harness

POLL_S = 0.25
PAGE_VIEWS = 2 / 7
"""Of all events that `fill` stores."""
VELOCITY = {"event_type": "page_view", "threshold": 3, "window_ms": 60_000, "keep_first": True}
METADATA = {"conditions": [{"key": "referrer", "operator": "contains", "value": "GOOGLE"}]}


class Previewed(Struct, frozen=True):
    """One preview: over how many events, how long it took, and how far the worker was behind at most meanwhile."""

    events: int
    seconds: float
    lag: float
    """Records that were not committed yet."""


async def previews(
    client: httpx.AsyncClient, worker: harness.Worker, first_ms: int, span_ms: int, share: float
) -> Mapping[str, Previewed]:
    """One of each kind, over this share of the events that are stored from `first_ms` on."""

    def upto(part: float) -> dict[str, str]:
        return {"from": to_text(first_ms), "to": to_text(first_ms + int(span_ms * min(1.0, part)))}

    wanted = {
        "velocity": {"filter": VELOCITY, **upto(share / PAGE_VIEWS)},
        "metadata": {"filter": METADATA, **upto(share)},
    }
    return {kind: await _preview(client, worker, kind, body) for kind, body in wanted.items()}


async def _preview(
    client: httpx.AsyncClient, worker: harness.Worker, kind: str, body: Mapping[str, Any]
) -> Previewed:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as scope:
        asking = scope.create_task(client.post(f"/{kind}-filters/preview", json=body))
        lag = 0.0
        while not asking.done():
            lag = max(lag, await _lag(worker))
            await asyncio.wait({asking}, timeout=POLL_S)
    answer = asking.result()
    assert answer.status_code == 200, answer.text
    return Previewed(answer.json()["events"], time.perf_counter() - began, lag)


async def _lag(worker: harness.Worker) -> float:
    found = await worker.metrics()
    return sum(value for name, value in found.items() if name.startswith("processor_lag_records{"))
