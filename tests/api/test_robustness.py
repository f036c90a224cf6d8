"""Whatever is sent, the answer is one of the contract: its shape, its status, and what it names."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import orjson
import pytest

from processor.api.connection import MOST_DISCARDED
from processor.api.services import _SESSION, POOL_SIZE
from processor.embedded.journal import free_port
from processor.failures import Retryable
from processor.io import postgres
from processor.io.postgres import Postgres
from tests.api.client import Api, api, http_client, serving

__all__ = ["api"]
pytestmark = pytest.mark.e2e


def fault(answer: httpx.Response, status: int, code: str) -> str:
    """The message of an error that has this status and code, in the shape of the contract."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert [*body] == ["error"]
    assert [*body["error"]] == ["code", "message"]
    assert body["error"]["code"] == code
    message: str = body["error"]["message"]
    assert message
    return message


async def raw(api: Api, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to these very bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
            length = int(headers.get("content-length", "0"))
            body = b"" if request.startswith(b"HEAD") else await reader.readexactly(length)
    finally:
        writer.close()
    return int(head[0].split()[1]), headers, body


async def test_an_unknown_address_is_a_404(api: Api) -> None:
    """Also below and behind known ones."""
    for path in ("/", "/nothing", "/events/", "/audit/", "/audit/1", "/docs/x", "/docs/..%2fx"):
        fault(await api.client.get(path), 404, "not_found")
    fault(await api.client.post("/events//"), 405, "method_not_allowed")


async def test_a_wrong_method_is_a_405_that_names_every_right_one(api: Api) -> None:
    """Also where several routes share an address."""
    answer = await api.client.post("/events/batch")
    fault(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    answer = await api.client.request("BREW", "/audit")
    fault(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_options_tells_the_methods_and_head_is_get_without_its_body(api: Api) -> None:
    """Neither needs more than GET does."""
    told = await api.bearing(None).options("/leads/merge")
    assert (told.status_code, told.content) == (204, b"")
    assert told.headers["allow"] == "GET, HEAD, OPTIONS, POST"  # a lead may be named so
    fault(await api.client.options("/nothing"), 404, "not_found")
    got, head = await api.client.get("/event-types"), await api.client.head("/event-types")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert (await api.client.head("/events/nobody")).status_code == 404
    assert (await api.bearing(None).head("/events")).status_code == 401


async def test_bodies_are_json_or_refused(api: Api) -> None:
    """What kind they are, how they are packed, how large, and what is in them."""
    path = "/leads/merge/preview"
    good = b'{"targetLeadId":"A","sourceLeadIds":["B"]}'

    async def post(content: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await api.client.post(path, content=content, headers=named)

    assert (await post(good)).status_code == 200
    assert (await post(good, content_type="application/json; charset=utf-8")).status_code == 200
    for kind in ("text/plain", "application/xml", "multipart/form-data", "application/jsonx"):
        fault(await post(good, content_type=kind), 415, "unsupported_media_type")
    fault(await post(good, content_encoding="gzip"), 415, "unsupported_media_type")
    fault(await post(b" " * (2 << 20) + good), 413, "too_large")
    for bad in (b"", b"{", b"\xff", b'{"a":1}x', b"nul", b"[" * 600, b"{'a':1}", b"\xef\xbb\xbf{}"):
        fault(await post(bad), 400, "bad_request")
    deep = b'{"a":' * 65 + b"1" + b"}" * 65
    assert "64 levels" in fault(await post(deep), 400, "bad_request")
    many = orjson.dumps({str(n): n for n in range(1_001)})
    assert "1000 keys" in fault(await post(many), 400, "bad_request")
    assert (await post(good[:-1] + b',"more":' + deep[10:-2] + b"}")).status_code == 200


async def test_a_body_that_is_too_long_gets_its_answer_unless_it_is_endless(api: Api) -> None:
    """No more of it is kept than is allowed, whether or not it says how long it is."""
    sent = 0

    async def chunks(number: int) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(number):
            sent += 1 << 16
            yield b" " * (1 << 16)

    fault(await api.client.post("/leads/merge", content=chunks(200)), 413, "too_large")
    fault(await api.client.post("/leads/merge", content=b" " * (8 << 20)), 413, "too_large")
    fault(await api.bearing(None).post("/leads/merge", content=chunks(200)), 401, "unauthorized")
    sent = 0
    with contextlib.suppress(httpx.TransportError):
        fault(await api.client.post("/leads/merge", content=chunks(1 << 14)), 413, "too_large")
    assert sent < 2 * MOST_DISCARDED


async def test_odd_addresses_and_queries_are_no_defects(api: Api) -> None:
    """NUL, malformed and overlong escapes, what is no UTF-8, and far too much of everything."""
    for path in ("%00", "%zz", "%", "%ff%fe", "%ED%A0%80", "%C0%AF", "a%2Fb%0Ac", "x" * 9_000):
        fault(await api.client.get(f"/events/{path}"), 404, "not_found")
    for query in ("lead_id=%00", "lead_id=%zz", "lead_id=%ff", "event_type=%00", "%ff=1", "&&=&=x"):
        assert (await api.client.get(f"/events?{query}")).status_code == 200, query
    for query in ("page=%ff", "page=1e3", "limit=-1", "page=99999999999999999999999", "page=٣٣٣x"):
        answer = await api.client.get("/events", params=httpx.QueryParams(query))
        assert answer.status_code in (200, 400), query
    fault(await api.client.get("/events?limit=0"), 400, "bad_request")


async def test_what_is_no_http_is_a_bad_request_of_the_same_shape(api: Api) -> None:
    """A head that is too long, a request line that is none, bytes that may not be."""
    for request in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 400_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /leads/merge HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    ):
        status, headers, body = await raw(api, request)
        assert (status, headers["content-type"]) == (400, "application/json"), request[:40]
        assert json.loads(body)["error"]["code"] == "bad_request"
    for request in (
        b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        assert (await raw(api, request))[0] in (200, 404)
    assert (await api.client.get("/healthz")).status_code == 200


async def test_a_token_with_odd_bytes_is_no_token(api: Api) -> None:
    """Whatever is in the header."""
    for value in (
        b"Bearer \xff\xfe",
        b"Bearer",
        b"Bearer  ",
        b"Basic YTpi",
        b"\xe2\x82\xac",
        b"Bearer a b",
    ):
        request = b"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: " + value + b"\r\n\r\n"
        status, headers, _ = await raw(api, request)
        assert (status, headers["www-authenticate"][:6]) == (401, "Bearer"), value


async def test_a_statement_that_takes_too_long_is_a_503(api: Api) -> None:
    """As is a lock that cannot be had: the same request may succeed later."""
    hasty = {**_SESSION, "statement_timeout": "200ms"}
    slow = await Postgres.connect(api.world.postgres, 2, hasty)
    port = free_port()
    try:
        async with serving(replace(api.services, postgres=slow, stopping=asyncio.Event()), port):
            async with api.database.acquire() as connection, connection.transaction():
                await connection.execute("LOCK TABLE events")
                token = api.client.headers["authorization"].split()[1]
                async with http_client(f"http://127.0.0.1:{port}", token) as client:
                    answer = await client.get("/events?lead_id=A")
            assert fault(answer, 503, "unavailable") == "postgres is away; try again"
            assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(Retryable, match="QueryCanceled"):
            async with slow.transaction() as connection:
                await connection.execute("SELECT pg_sleep(5)")
    finally:
        await slow.close()


async def test_requests_are_counted_by_route_and_never_by_what_is_asked(api: Api) -> None:
    """The lead's name is in no label."""
    await api.client.get("/events/somebody")
    await api.client.get("/nobody-is-here")
    text = (await api.client.get("/metrics")).text
    assert (
        'processor_http_requests_total{method="GET",route="/events/{lead_id:lead}",status="4xx"}'
        in text
    )
    assert 'processor_http_requests_total{method="GET",route="none",status="4xx"}' in text
    assert 'processor_http_seconds_count{route="/events/{lead_id:lead}"}' in text
    assert "somebody" not in text
    assert "nobody-is-here" not in text


async def test_requests_do_not_pile_up_behind_a_server_that_hangs(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gets no connection for a while is told so; it is well again as soon as there is one."""
    monkeypatch.setattr(postgres, "ACQUIRED_S", 0.3)
    async with contextlib.AsyncExitStack() as busy:
        for _ in range(POOL_SIZE):
            await busy.enter_async_context(api.services.postgres.of_org_unit("acme"))
        fault(await api.client.get("/event-types"), 503, "unavailable")
    assert (await api.client.get("/event-types")).status_code == 200
