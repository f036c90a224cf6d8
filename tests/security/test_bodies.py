"""Bodies, heads and addresses that are too large, too deep, packed, or not what they say: refused, and what they cost is bounded."""

import asyncio
import gc
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.client import Api, api
from tests.api.filtering import made
from tests.api.test_robustness import fault, raw
from tests.security.attacks import described, filled, refused_or_answered

__all__ = ["api"]
pytestmark = pytest.mark.e2e

MB = 1 << 20
MOST_GROWN = 320 * MB
"""Of this process, which has the client and its bodies as well: 2 MB of `{}` are 100 MB of Python."""
DEEP = 100_000
BOMB = gzip.compress(b" " * (64 * MB))
IDS = {"lead_id": "x", "merge_id": "0" * 32, "filter_id": "x"}

LARGE: Mapping[str, bytes] = {
    "text": b'{"a":"' + b"x" * (10 * MB) + b'"}',
    "numbers": b"[" + b"1," * (5 * MB) + b"1]",
}
"""Over the 2 MB that a body may have."""
COSTLY: Mapping[str, bytes] = {
    "depth of arrays": b"[" * DEEP,
    "depth of objects": b'{"a":' * DEEP,
    "closed depth": b"[" * DEEP + b"]" * DEEP,
    "keys": b"{" + b",".join(b'"%d":0' % n for n in range(200_000)) + b"}",
    "same key": b'{"a":0' + b',"a":0' * 300_000 + b"}",
    "objects": b"[" + b"{}," * 600_000 + b"{}]",
    "digits": b"9" * (2 * MB - 1),
    "decimal": b"0." + b"9" * (2 * MB - 3),
    "exponent": b"1e" + b"9" * 1_000_000,
    "escapes": b'"' + rb"\u0000" * 300_000 + b'"',
    "surrogates": b'"' + rb"\ud800" * 300_000 + b'"',
    "open text": b'"' + b"x" * (2 * MB - 2),
    "white space": b" " * (2 * MB - 2) + b"{}",
}
"""Within 2 MB, and as costly as can be; each operation gets some of them in turn."""


FILTERS: Mapping[str, tuple[bytes, str]] = {
    "conditions": (b'"conditions":[' + b"0," * 25_000 + b"0]", "conditions: the list"),
    "empty": (b'"conditions":[' + b"{}," * 12_000 + b"{}]", "conditions: the list"),
    "in": (
        b'"conditions":[{"key":"k","operator":"in","value":[' + b"[]," * 12_000 + b"[]]}]",
        "conditions 1, value: the list",
    ),
    "in_cidr": (
        b'"conditions":[{"key":"k","operator":"in_cidr","value":[' + b"0," * 25_000 + b"0]}]",
        "conditions 1, value: the list",
    ),
    "networks": (
        b'"conditions":[{"key":"k","operator":"in_cidr","value":[' + b'"::",' * 25_000 + b'"::"]}]',
        "conditions 1, value: the list",
    ),
    "fields": (b",".join(b'"%x":0' % n for n in range(25_000)), "The body has more than 1000"),
    "values": (b'"conditions":[' + b"{}," * (MB // 2) + b"{}]", "The body has more than 30000"),
    "items": (
        b'"conditions":[{"key":"k","operator":"in","value":[' + b"0," * (MB - 128) + b"0]}]",
        "The body has more than 30000",
    ),
}
"""Fields of a filter within 2 MB, as costly as can be, and what is said of them."""


async def taking_bodies(api: Api) -> list[tuple[str, str]]:
    """Method and address of everything that has a body."""
    return [
        (method, filled(path, IDS))
        for path, item in (await described(api)).items()
        for method, operation in item.items()
        if "requestBody" in operation
    ]


async def test_no_body_is_too_much_for_any_operation(api: Api) -> None:
    """Too large is a 413, the costly ones are answered, and the process is not larger than before by more than some bodies."""
    before = _at_rest()
    operations = await taking_bodies(api)
    assert len(operations) > 10
    large, costly = cycle(LARGE.values()), cycle(COSTLY.values())
    for method, path in operations:
        fault(await _sent(api, method, path, next(large)), 413, "too_large")
        for body in islice(costly, 5):
            refused_or_answered(await _sent(api, method, path, body))
    assert _peak() - before < MOST_GROWN
    assert (await api.client.get("/healthz")).status_code == 200


async def _sent(api: Api, method: str, path: str, body: bytes, **headers: str) -> httpx.Response:
    return await api.client.request(method, path, content=body, headers=headers)


def _at_rest() -> int:
    """The memory of this process, bytes; its peak is measured from here on."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory this process has had since then, bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


async def test_no_definition_is_too_much(api: Api) -> None:
    """Of a filter that is made, replaced, changed or previewed: it is refused by what is wrong with it, for what its bytes cost."""
    await made(api, "/metadata-filters", id="one")
    for body, complaint in FILTERS.values():
        for method, path, given in (
            ("POST", "/metadata-filters", b'{"name":"Bots",%b}' % body),
            ("PUT", "/metadata-filters/one", b'{"name":"Bots",%b}' % body),
            ("PATCH", "/metadata-filters/one", b"{%b}" % body),
            ("POST", "/metadata-filters/preview", b'{"filter":{%b}}' % body),
        ):
            before = _at_rest()
            message = fault(await _sent(api, method, path, given), 400, "bad_request")
            assert message.startswith(complaint)
            assert _peak() - before < MOST_GROWN


async def test_a_packed_body_is_refused_before_it_is_unpacked(api: Api) -> None:
    """Whatever it is packed with, however often, and whatever it would have become; one that is packed and does not say so is no JSON."""
    before = _at_rest()
    for method, path in await taking_bodies(api):
        for how in ("gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x"):
            answer = await _sent(api, method, path, BOMB, **{"Content-Encoding": how})
            fault(answer, 415, "unsupported_media_type")
        for body in (BOMB, zlib.compress(b"{}")):
            fault(await _sent(api, method, path, body), 400, "bad_request")
    assert _peak() - before < 16 * MB


async def test_a_length_that_lies_gains_nothing(api: Api) -> None:
    """Two of them, none that is a number, beside chunks, or more and less than what comes."""
    token = api.client.headers["authorization"]
    head = (
        "POST /leads/merge/preview HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nAuthorization: {token}\r\n"
    ).encode()
    good = b'{"targetLeadId":"a","sourceLeadIds":["b"]}'
    for lengths in (
        b"Content-Length: 10\r\nContent-Length: 44\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 4e1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: " + b"9" * 400 + b"\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
    ):
        status, _, _ = await raw(api, head + lengths + b"\r\n" + good)
        assert status in {400, 413, 501}, lengths
    short = b"Content-Length: 5\r\n\r\n" + good
    assert (await raw(api, head + short))[0] == 400
    chunks = b"Transfer-Encoding: chunked\r\n\r\n"
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(good), good)
    assert (await raw(api, head + chunks + whole))[0] == 200
    for bad in (b"zz\r\n", b"-1\r\n", b"F" * 100 + b"\r\n"):
        assert (await raw(api, head + chunks + bad))[0] == 400


async def test_what_follows_a_body_is_no_second_request(api: Api) -> None:
    """Where the length is told twice the connection ends with one answer, so nothing can be smuggled past a proxy."""
    smuggled = b"GET /audit HTTP/1.1\r\nHost: x\r\n\r\n"
    request = (
        b"POST /leads/merge HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(request)
    writer.write_eof()
    async with asyncio.timeout(10):
        answered = await reader.read()
    writer.close()
    assert all(part[:3] in {b"400", b"401"} for part in answered.split(b"HTTP/1.1 ")[1:]), answered


async def test_heads_and_addresses_are_bounded(api: Api) -> None:
    """Long ones, many of them, and long parameters: a 400, or what they mean."""
    for path in (
        "/events?lead_id=" + "x" * 30_000,
        "/events/" + "%00" * 9_000,
        "/" + "a/" * 10_000,
    ):
        refused_or_answered(await api.client.get(path))
    many = "&".join(f"lead_id={n}" for n in range(3_000))
    refused_or_answered(await api.client.get(f"/events?{many}"))
    for lines in (
        b"X: " + b"x" * 400_000 + b"\r\n",
        b"".join(b"X-%d: y\r\n" % n for n in range(50_000)),
        b"x" * 400_000 + b": y\r\n",
        b"Authorization: Bearer " + b"x" * 400_000 + b"\r\n",
    ):
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n"
        assert (await raw(api, request))[0] == 400
    long = b"GET /" + b"x" * 400_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await raw(api, long))[0] == 400


async def test_endless_bodies_at_once_do_not_add_up(api: Api) -> None:
    """Each is read no further than allowed, so many cost little more than one."""
    before = _at_rest()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b" " * (1 << 16)

    async def send() -> None:
        try:
            answer = await api.client.post("/ingest", content=endless())
        except httpx.TransportError:
            return  # cut off while it was still sending
        fault(answer, 413, "too_large")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(send())
    assert _peak() - before < MOST_GROWN


async def test_metadata_has_its_limits_however_they_are_reached(api: Api) -> None:
    """Depth, keys and size of each event, and the number of events."""
    event: dict[str, Any] = {"lead_id": "a", "event_type": "b"}
    deep: Any = 1
    for _ in range(33):
        deep = {"a": deep}
    keys = {str(n): 0 for n in range(1_001)}
    for metadata, status in ((deep, 400), (keys, 400), ({"a": "x" * 102_400}, 413)):
        answer = await api.client.post("/ingest", json={**event, "metadata": metadata})
        assert answer.status_code == status
    body = json.dumps([event] * 1_001).encode()
    fault(await api.client.post("/ingest", content=body), 400, "bad_request")
