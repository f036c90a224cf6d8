"""Previews as tests ask for them."""

from collections.abc import Mapping
from typing import Any

import httpx

from tests.api.client import Api

START = 1_700_000_000_000
VELOCITY = {"event_type": "page_view", "threshold": 3, "window_ms": 1_000}
METADATA = {"conditions": [{"key": "ua", "operator": "contains", "value": "bot"}]}


async def ask(api: Api, kind: str, wanted: Mapping[str, Any], **more: Any) -> httpx.Response:
    """The answer of a preview, over everything unless told otherwise."""
    ranged = more or {"from": "0001-01-01T00:00:00Z"}
    body = {"filter": wanted, **ranged}
    return await api.client.post(f"/{kind}-filters/preview", json=body)


async def told(api: Api, kind: str, wanted: Mapping[str, Any], **more: Any) -> Any:
    """What a preview tells."""
    answer = await ask(api, kind, wanted, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()
