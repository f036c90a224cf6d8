"""What `processor doctor` asks Redis.  It leaves nothing there."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from processor.failures import Retryable, StartRefused
from processor.io.clock import now_ms
from processor.io.redis import translated
from processor.io.windows import LAYOUT
from processor.pure import checkup as judge
from processor.pure.checkup import Redis
from processor.pure.findings import Finding
from processor.settings import Settings

_PROBE = Path(__file__).with_name("checkup_probe.lua").read_text()
_TIMEOUT_S = 2.0


async def redis_server(settings: Settings) -> list[Finding]:
    """Version, memory, permissions and clock; raises `StartRefused` where Redis is away."""
    try:
        client = redis.asyncio.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise StartRefused(f"REDIS_URL is not a Redis URL: {error}") from error
    try:
        async with translated():
            return await _findings(client)
    except Retryable as error:
        raise StartRefused(f"cannot use Redis: {error.reason}; check REDIS_URL") from error
    finally:
        await client.aclose()


async def _findings(client: "redis.asyncio.Redis") -> list[Finding]:
    asked = now_ms()
    seconds, micros = await client.time()
    here = (asked + now_ms()) // 2
    told = _told(await client.info(), await _refused(client))
    ahead = int(seconds) * 1000 + int(micros) // 1000 - here
    return [*judge.redis(told), judge.clock("redis clock", ahead)]


async def _refused(client: "redis.asyncio.Redis") -> list[str]:
    """Commands that the scripts call and the user may not."""
    key = f"{LAYOUT}:{{0}}:doctor:{secrets.token_hex(8)}"
    try:
        digest = await client.script_load(_PROBE)
        said: Any = client.evalsha(digest, 1, key)
        return [line.decode() for line in await said]
    except redis.exceptions.ResponseError as error:
        return [str(error)]


def _told(info: Mapping[str, Any], refused: list[str]) -> Redis:
    valkey = "valkey_version" in info
    return Redis(
        "Valkey" if valkey else "Redis",
        str(info["valkey_version" if valkey else "redis_version"]),
        str(info.get("role", "master")),
        str(info.get("maxmemory_policy", "noeviction")),
        int(info.get("maxmemory", 0)),
        int(info.get("used_memory", 0)),
        refused,
    )
