"""What `processor doctor` asks Redis, every primary of a cluster.  It leaves nothing there."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from processor.failures import Retryable, StartRefused
from processor.io.clock import now_ms
from processor.io.redis import connected, translated
from processor.io.redis_client import Client
from processor.io.windows_generations import LAYOUT
from processor.pure import checkup as judge
from processor.pure.checkup import Redis
from processor.pure.findings import Finding
from processor.settings import Settings

_NOBODYS = "0" * 40
"""The digest of no script."""
_PROBE = Path(__file__).with_name("checkup_probe.lua").read_text()


async def redis_server(settings: Settings) -> list[Finding]:
    """Version, memory, permissions and clock; raises `StartRefused` where Redis is away."""
    try:
        async with translated():
            client = await connected(settings.redis_url.get_secret_value())
            try:
                return await _findings(client)
            finally:
                await client.close()
    except Retryable as error:
        raise StartRefused(f"cannot use Redis: {error.reason}; check REDIS_URL") from error


async def _findings(client: Client) -> list[Finding]:
    asked = now_ms()
    times = await client.each("TIME")
    here = (asked + now_ms()) // 2
    ahead = max((int(s) * 1000 + int(us) // 1000 - here for s, us in times.values()), key=abs)
    infos = await client.each("INFO")
    refused = await _refused(client)
    told = [_told(f" {node}" if len(infos) > 1 else "", info) for node, info in infos.items()]
    servers = [finding for one in told for finding in judge.redis(one)]
    return [*servers, judge.redis_rights(refused), judge.clock("redis clock", ahead)]


async def _refused(client: Client) -> Sequence[str]:
    """Commands that the scripts call and the user may not, in any shard."""
    key = f"doctor:{secrets.token_hex(8)}"
    keys = [f"{LAYOUT}:{{{tag}}}:{key}" for tag in client.tags]
    answers = await client.send([(n, ("EVAL", _PROBE, 1, one)) for n, one in enumerate(keys)])
    said = [
        [str(a)] if isinstance(a, Exception) else [line.decode() for line in a] for a in answers
    ]
    unknown = await client.send([(n, ("EVALSHA", _NOBODYS, 1, one)) for n, one in enumerate(keys)])
    said.append([f"EVALSHA: {a}" for a in unknown if not isinstance(a, NoScriptError)])
    return sorted({line for lines in said for line in lines})


def _told(where: str, info: Mapping[str, Any]) -> Redis:
    valkey = "valkey_version" in info
    return Redis(
        where,
        "Valkey" if valkey else "Redis",
        str(info["valkey_version" if valkey else "redis_version"]),
        str(info.get("role", "master")),
        str(info.get("maxmemory_policy", "noeviction")),
        int(info.get("maxmemory", 0)),
        int(info.get("used_memory", 0)),
    )
