"""Line breaks and terminal codes where they would mean something: headers of HTTP and Kafka, streams, logs and what commands print."""

import json
import logging
import re

import pytest
import structlog
from msgspec import Raw

from processor.io import tokens
from processor.pure.enrich import headers
from processor.pure.shown import shown
from processor.pure.timestamps import to_text
from processor.pure.types import EnrichedRow
from processor.purge import Purged
from processor.telemetry import configure_logging
from processor.token_options import line
from tests.api import sse
from tests.api.client import Api, api
from tests.api.test_robustness import raw
from tests.harness import read_topic
from tests.security.attacks import TEXTS, encoded

__all__ = ["api"]

BREAKS = "a\r\nInjected: b\r\n\r\nc\x1b[2Jd\x85e\u2028f\u202eg\x00"
KEPT = BREAKS.rstrip("\0")
"""The same without what no text may have."""


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("logged", ["event", "value", "name", "foreign", "foreign argument"])
def test_a_log_record_is_one_line(
    log_format: str, logged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ours and of libraries, whatever is in it; and no terminal obeys it."""
    configure_logging("json" if log_format == "json" else "console")
    ours, theirs = structlog.get_logger(f"lines.{log_format}"), logging.getLogger("somebody")
    match logged:
        case "event":
            ours.warning(BREAKS)
        case "value":
            ours.warning("an_event", reason=BREAKS, more=[BREAKS], most={"k": BREAKS})
        case "name":
            ours.warning("an_event", name=BREAKS)
        case "foreign":
            theirs.warning(BREAKS)
        case _:
            theirs.warning("said %s", BREAKS)
    (written,) = capsys.readouterr().err.splitlines()
    assert "Injected" in written
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]", written)


def test_what_commands_print_of_others_is_one_line_each() -> None:
    """Org units of a purge, tokens of a list: producers and colleagues named them."""
    assert str(Purged(0, {BREAKS: 3}, 0)).count("\n") == 1
    row = dict.fromkeys(("prefix", "org_unit", "name", "created_by"), BREAKS)
    times = dict.fromkeys(("revoked_at", "expires_at", "created_at", "used_at"))
    printed = line({**row, **times, "scopes": tokens.SCOPES})
    assert len(printed.splitlines()) == 1
    assert "\x1b" not in printed


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_harmless_is_shown_as_it_is(text: str) -> None:
    """And the rest can be told from it."""
    assert (shown(text) == text) == text.isprintable()
    assert shown(text).isprintable()


@pytest.mark.parametrize("text", [KEPT, "", "é\r\n", "org-unit: other"])
def test_a_header_of_an_enriched_event_is_its_value_and_no_other(text: str) -> None:
    """Kafka counts the bytes of a header, so line breaks in it end nothing."""
    row = EnrichedRow(
        id=text,
        org_unit=f"own{text}",
        lead_id=text,
        original_lead_id=None,
        event_type="Page View",
        metadata=Raw(b"{}"),
        suppression_reason=None,
        created_at=to_text(0),
        received_at=to_text(0),
        suppressed_by=None,
    )
    told = dict(headers(row))
    assert (told["event-id"], told["org-unit"]) == (text.encode(), f"own{text}".encode())
    assert sorted(told) == ["event-id", "org-unit", "schema-version"]


@pytest.mark.e2e
async def test_no_text_reaches_a_header_of_an_answer(api: Api) -> None:
    """What is asked about is nowhere in the head; a token, a key or an id with a line break is none."""
    for path in (
        f"/events/{encoded(KEPT)}",
        f"/velocity-filters/{encoded(KEPT)}",
        f"/x{encoded(KEPT)}",
    ):
        answer = await api.client.get(path)
        assert answer.status_code == 404
        assert "injected" not in answer.headers
    made = await api.client.post(
        "/velocity-filters",
        json={"id": f"a{KEPT}", "name": "n", "event_type": "x", "threshold": 1, "window_ms": 1},
    )
    assert made.status_code == 400
    assert "injected" not in made.headers
    for name in ("Authorization", "Idempotency-Key", "If-Match", "Last-Event-ID", "X-Y"):
        for value in (b"a\rb", b"a\0b", b"a\x0bb", b"a\x7fb", b"a\nX: b"):
            request = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{name}: ".encode() + value
            status, head, _ = await raw(api, request + b"\r\n\r\n")
            assert status in {200, 400}
            assert "x" not in head


@pytest.mark.e2e
async def test_an_id_with_line_breaks_is_one_event_of_the_topic(api: Api) -> None:
    """As it was sent, with no header of its own making."""
    event = {"id": KEPT, "lead_id": KEPT, "event_type": "b", "metadata": {"k": KEPT}}
    key = {"Idempotency-Key": "Injected: b"}
    answer = await api.client.post("/ingest", json=event, headers=key)
    assert (answer.status_code, answer.json()) == (202, {"ids": [KEPT]})
    (record,) = await read_topic(api.world.kafka, api.world.raw)
    assert record.key == KEPT.encode()
    assert json.loads(record.value or b"")["id"] == KEPT
    assert record.headers == ()


@pytest.mark.e2e
async def test_an_event_with_line_breaks_is_one_event_of_the_stream(api: Api) -> None:
    """Whoever wrote it, and however its JSON is laid out."""
    fake = 'x\n\nevent: lead_merged\nid: 1\ndata: {"id": "fake"}\n\n'
    odd = sse.enriched(fake, lead_id=fake, metadata={"k": fake, fake: KEPT})
    laid_out = sse.enriched("b")
    value = json.dumps(json.loads(laid_out.value or b""), indent=1).replace("\n", "\r\n").encode()
    plain = type(laid_out)(value, laid_out.key, headers=laid_out.headers)
    async with sse.listening(api.client) as stream:
        await sse.publish(api.world, [odd, plain])
        await stream.has(2)
    assert stream.names() == ["new_event", "new_event"]
    assert set(stream.ids()) == {fake, "b"}
