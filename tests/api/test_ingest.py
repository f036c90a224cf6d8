"""``POST /ingest``: what it accepts, what it refuses, and that a worker makes of it what it makes of a producer's message."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from processor import telemetry
from tests.api.client import Api, api
from tests.e2e.operating import configure
from tests.harness import Message, Worker, hour_ago, produce, read_topic, until

__all__ = ["api"]
pytestmark = pytest.mark.e2e

VIEW: dict[str, Any] = {"lead_id": "ld_1", "event_type": "page_view"}
LIMIT = 2 << 20
AT = 1_736_937_000_000
"""2025-01-15T10:30:00Z."""


async def published(api: Api) -> list[Any]:
    """Every record of the raw topic."""
    return await read_topic(api.world.kafka, api.world.raw)


async def refused(api: Api, status: int, body: Any) -> str:
    """Why the body is refused."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await post(api, content)
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    return message


async def post(api: Api, content: bytes, **headers: str) -> Any:
    """The answer to a body."""
    return await api.client.post(
        "/ingest", content=content, headers={"Content-Type": "application/json", **headers}
    )


async def test_an_event_is_on_the_topic_when_it_is_accepted(api: Api) -> None:
    """Keyed by its lead, under the token's org unit, with the time it was accepted and an id nobody can guess."""
    before = telemetry.INGESTED._value.get()
    at = api.now.at = hour_ago()
    answer = await api.client.post("/ingest", json=VIEW | {"org_unit": "globex", "more": [1]})
    assert (answer.status_code, list(answer.json())) == (202, ["ids"])
    (event_id,) = answer.json()["ids"]
    assert len(event_id) == 32
    (record,) = await published(api)
    assert (record.key, record.timestamp, list(record.headers)) == (b"ld_1", at, [])
    assert record.value == (
        b'{"org_unit":"acme","id":"%b","lead_id":"ld_1","event_type":"page_view","metadata":{}}'
        % event_id.encode()
    )
    assert telemetry.INGESTED._value.get() == before + 1


async def test_ids_are_answered_in_the_order_sent(api: Api) -> None:
    """Those that are given stay, the others are all different; a lead's events keep their order."""
    given = [VIEW | ({"id": f"evt-{n}"} if n % 3 else {}) for n in range(1_000)]
    answer = await api.client.post("/ingest", json=given)
    ids = answer.json()["ids"]
    assert answer.status_code == 202
    assert len(set(ids)) == 1_000
    assert [i for n, i in enumerate(ids) if n % 3] == [f"evt-{n}" for n in range(1_000) if n % 3]
    assert [json.loads(record.value)["id"] for record in await published(api)] == ids


BAD: list[tuple[Any, str]] = [
    ([], "The body must be an event or an array of 1 to 1000 events."),
    ([VIEW] * 1_001, "The body must be an event or an array of 1 to 1000 events."),
    ("text", "The body must be an event or an array of 1 to 1000 events."),
    (b"[" + orjson.dumps(VIEW) + b",", "The body is not valid: The value is not JSON."),
    (b"\xff", "The body is not valid: The value is not UTF-8 text."),
    (b"[" * 100_000, "The body is not valid: The value is nested deeper than 512 levels."),
    ([VIEW, VIEW, VIEW, {"event_type": "x"}], "[3].lead_id: is required."),
    ({"event_type": "x"}, "lead_id: is required."),
    ([VIEW, 7], "[1]: must be a JSON object."),
    ([VIEW | {"id": ""}], "[0].id: must have 1 to 128 characters."),
    ([VIEW | {"lead_id": 7}], "[0].lead_id: must be a string."),
    ([VIEW | {"event_type": "__"}], "[0].event_type: has nothing but separators."),
    ([VIEW, VIEW | {"metadata": []}], "[1].metadata: must be an object."),
    ([VIEW | {"metadata": {"a": {"b": "\0"}}}], "[0].metadata.a.b: holds NUL."),
    ([VIEW | {"created_at": "2025-01-15"}], "[0].created_at: is not an RFC 3339 time"),
    (
        b'[{"lead_id":"a","event_type":"b","metadata":{"n":1e999}}]',
        "[0].metadata.n: is not a number that can be kept.",
    ),
    (
        b'[{"lead_id":"a","event_type":"b","metadata":{"n":18446744073709551616}}]',
        "[0].metadata.n: is not a number that can be kept.",
    ),
    (b'{"lead_id":"\\ud800","event_type":"b"}', "lead_id: holds NUL or a lone surrogate."),
    ([VIEW | {"metadata": {str(n): [] for n in range(1_001)}}], "[0].metadata: has more than"),
]


async def test_one_bad_element_refuses_all_and_is_named(api: Api) -> None:
    """By its index, unless it is the body itself, and its field; nothing is published."""
    for body, message in BAD:
        assert (await refused(api, 400, body)).startswith(message)
    assert await published(api) == []


async def test_metadata_over_its_limit_is_too_large(api: Api) -> None:
    """The limit counts compact bytes, whatever the body looks like."""
    fits = VIEW | {"metadata": {"text": "é" * 51_194}}
    assert len(orjson.dumps(fits["metadata"])) == 102_399
    large = VIEW | {"metadata": {"text": "é" * 51_195}}
    message = await refused(api, 413, [fits, large])
    assert message == "[1].metadata: has more than 102400 bytes as compact JSON."
    assert (await refused(api, 413, large)).startswith("metadata: ")
    assert await published(api) == []
    assert (await api.client.post("/ingest", json=[fits])).status_code == 202


async def test_a_time_too_far_after_that_of_acceptance_is_refused(api: Api) -> None:
    """To the millisecond."""
    api.now.at = AT
    late, latest = "2025-01-15T11:30:00.001Z", "2025-01-15T12:30:00+01:00"
    message = await refused(api, 400, [VIEW, VIEW | {"timestamp": late}])
    assert message.startswith("[1].timestamp: is more than 3600000 ms after")
    answer = await api.client.post("/ingest", json=VIEW | {"timestamp": latest})
    assert answer.status_code == 202


async def limit_raw_topic(api: Api, max_bytes: int) -> None:
    """Sets max.message.bytes; the broker knows it then."""
    await configure(api.world, api.world.raw, max_message_bytes=str(max_bytes))


async def test_a_record_over_the_topics_limit_is_too_large(api: Api) -> None:
    """To the byte, and as the limit is now: lowered after the first event, then raised again."""
    assert (await api.client.post("/ingest", json=VIEW)).status_code == 202
    (record,) = await published(api)
    # Head of a batch, length, attributes, time and offset, key, value, number of headers.
    alone = 61 + 2 + 3 + 1 + len(record.key) + 2 + len(record.value) + 1
    await limit_raw_topic(api, alone)
    longer = VIEW | {"metadata": {"text": "x" * 1_000}}

    async def refusal() -> str:
        answer = await api.client.post("/ingest", json=[VIEW, longer])
        assert answer.status_code in (413, 503), answer.text  # 503: it had not heard of it
        message: str = answer.json()["error"]["message"]
        return message if answer.status_code == 413 else ""

    assert await until(refusal) == f"[1]: larger than the {alone} bytes a message may have"
    assert (await refused(api, 413, longer)).startswith("The body: larger than")
    before = len(await published(api))
    assert (await api.client.post("/ingest", json=[VIEW, VIEW])).status_code == 202
    assert len(await published(api)) == before + 2
    await limit_raw_topic(api, 2_000)
    await until(lambda: accepted(api, longer))


async def accepted(api: Api, body: Any) -> bool:
    """Whether it is."""
    return bool((await api.client.post("/ingest", json=body)).status_code == 202)


class Raw:
    """A connection to the API, to say what no HTTP client would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer


@pytest.fixture
async def raw(api: Api) -> AsyncIterator[Raw]:
    """To the API of the test."""
    port = int(api.url.rpartition(":")[2])
    found = Raw(*await asyncio.open_connection("127.0.0.1", port))
    yield found
    found.writer.close()


def head(api: Api, *more: str) -> bytes:
    """Of a request to POST /ingest."""
    token = api.client.headers["Authorization"]
    lines = ["POST /ingest HTTP/1.1", "Host: x", f"Authorization: {token}", *more, "", ""]
    return "\r\n".join(lines).encode()


async def answered(raw: Raw) -> str:
    """The first line and the rest of an answer, until the server hangs up."""
    async with asyncio.timeout(10):
        return (await raw.reader.read()).decode()


async def test_a_body_over_2_mb_is_refused_before_any_of_it_is_sent(api: Api, raw: Raw) -> None:
    """Where its length is told."""
    raw.writer.write(head(api, f"Content-Length: {LIMIT + 1}"))
    assert (await answered(raw)).startswith("HTTP/1.1 413 ")


async def test_a_chunked_body_over_2_mb_is_refused_before_its_end(api: Api, raw: Raw) -> None:
    """The last chunk never comes."""
    raw.writer.write(head(api, "Transfer-Encoding: chunked"))
    for _ in range(LIMIT >> 16):
        raw.writer.write(b"10000\r\n" + b" " * 65_536 + b"\r\n")
    raw.writer.write(b"1\r\n \r\n")
    assert (await answered(raw)).startswith("HTTP/1.1 413 ")


async def test_a_body_of_2_mb_is_read(api: Api) -> None:
    """To the last byte."""
    body = orjson.dumps(VIEW).ljust(LIMIT)
    assert (await post(api, body)).status_code == 202
    assert (await post(api, body + b" ")).status_code == 413


async def test_a_body_that_takes_long_to_judge_holds_up_nobody(api: Api) -> None:
    """Two megabytes of brackets: others are answered meanwhile."""
    hard = b'{"lead_id":"a","event_type":"b","x":NaN,"y":[' + b"[]," * 690_000 + b"0]}"
    judging = asyncio.create_task(post(api, hard))
    answered_meanwhile = 0
    async with asyncio.timeout(30):
        while not judging.done():
            assert (await api.client.get("/healthz")).status_code == 200
            answered_meanwhile += 1
    assert (await judging).status_code == 202
    assert answered_meanwhile > 4  # a loop that is held up answers once or twice


async def test_a_producer_that_hangs_up_in_mid_body_is_no_defect(api: Api, raw: Raw) -> None:
    """The log has no failure (any error logged fails this test), and nothing is published."""
    raw.writer.write(head(api, "Content-Length: 1000") + b'{"lead_id": "')
    await raw.writer.drain()
    raw.writer.close()
    assert (await api.client.get("/healthz")).status_code == 200
    assert await published(api) == []


async def test_who_may_not_ingest_is_told_so_before_the_body_is_looked_at(api: Api) -> None:
    """The token first, then its scope."""
    nobody = api.bearing(None)
    answer = await nobody.post("/ingest", content=b"{", headers={"Idempotency-Key": ""})
    assert (answer.status_code, "WWW-Authenticate" in answer.headers) == (401, True)
    reader = await api.as_org_unit("acme", scopes=["events:read"])
    answer = await reader.post("/ingest", content=b"{", headers={"Idempotency-Key": ""})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    answer = await api.client.post("/ingest", data={"a": "b"})
    assert answer.status_code == 415


DEEP = "[" * 511 + "]" * 511
SAME = [
    '{"lead_id":"ld_1","event_type":"page_view"}',
    '{"lead_id":"\\u00e9\\ud83d\\ude00\\u0001","event_type":" EMAIL-open__x ","metadata":null}',
    '{"lead_id":"a","lead_id":"b","event_type":"\\u0149\\u0149 \\u00df","metadata":{"k":1,"l":2,"k":3}}',
    '{"lead_id":"a","event_type":"n","metadata":{"i":18446744073709551615,"j":-9223372036854775808}}',
    '{"lead_id":"a","event_type":"n","metadata":{"f":1e22,"g":0.1e1,"h":-0.0,"u":1e-999,"d":9223372036854775808.0}}',
    '{"lead_id":"a","event_type":"n","metadata":{"s":"\\u2028\\\\u0000 \\"","e":{"":[null,true,{}]}},"x":NaN,"y":"\\ud800"}',
    '{"lead_id":"a","event_type":"t","timestamp":"2025-01-15T10:30:00.12399+02:00","created_at":7}',
    '{"lead_id":"a","event_type":"t","timestamp":null,"created_at":"0001-01-01T00:00:00Z"}',
    f'{{"lead_id":"a","event_type":"deep","x":{DEEP}}}',
]
STORED = "SELECT id, lead_id, event_type, metadata::text, occurred_at, counted FROM events WHERE org_unit = 'acme'"


async def test_a_worker_stores_what_it_would_have_stored_of_a_producers_message(
    api: Api, start_worker: Callable[..., Worker]
) -> None:
    """Whatever the body looks like: alone, in an array, and directly on the topic."""
    at = api.now.at = hour_ago()

    def named(text: str, event_id: str) -> bytes:
        return f'{{"id":"{event_id}",{text[1:]}'.encode()

    def direct(n: int, text: str) -> Message:
        return Message(b'{"org_unit":"acme",' + named(text, f"direct-{n}")[1:], b"k", timestamp=at)

    await produce(api.world.kafka, api.world.raw, [direct(n, text) for n, text in enumerate(SAME)])
    for n, text in enumerate(SAME):
        assert (await post(api, named(text, f"alone-{n}"))).json()["ids"] == [f"alone-{n}"]
    several = b" [" + b",".join(named(text, f"array-{n}") for n, text in enumerate(SAME)) + b"]"
    assert (await post(api, several)).status_code == 202
    worker = start_worker(api.world.environment())
    await worker.ready()

    async def rows() -> Any:
        found = await api.database.fetch(STORED)
        return found if len(found) == 3 * len(SAME) else None

    stored = {row["id"]: tuple(row.values())[1:] for row in await until(rows, 30)}
    assert await read_topic(api.world.kafka, api.world.dead) == []
    for n in range(len(SAME)):
        assert stored[f"alone-{n}"] == stored[f"array-{n}"] == stored[f"direct-{n}"]
    assert await worker.stop() == 0
