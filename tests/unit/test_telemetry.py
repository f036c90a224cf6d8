"""Logs in one format, probes that answer, metrics that say what they mean."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import REGISTRY

from processor import telemetry
from processor.embedded.journal import free_port
from processor.failures import StartRefused
from tests.harness_worker import http_get

OUR_LABELS = {
    "topic", "partition", "reason", "kind", "stage", "dependency", "route", "method", "status",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is of the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def fail(text: str) -> None:
    """Logs a failure of code that has a payload at hand."""
    payload = "@".join(["somebody", "example.org"])
    try:
        refuse(payload, text)
    except ValueError:
        structlog.get_logger().exception("worker_failed")


def refuse(payload: str, text: str) -> None:
    """Fails."""
    raise ValueError(text if payload else "")


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and those of libraries, with what is bound and what went wrong."""
    telemetry.configure_logging("json")
    structlog.get_logger().bind(partition=3).info("lane_started", offset=7)
    logging.getLogger("library").warning("it says %s", "so")
    fail("broken")
    printed = capsys.readouterr()
    ours, theirs, failure = map(json.loads, printed.err.splitlines())
    assert (ours["event"], ours["level"], ours["partition"], ours["offset"]) == (
        "lane_started",
        "info",
        3,
        7,
    )
    assert (theirs["event"], theirs["level"]) == ("it says so", "warning")
    assert "ValueError: broken" in failure["exception"]
    assert printed.out == ""


def test_the_console_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """They hold payloads."""
    telemetry.configure_logging("console")
    fail("broken")
    printed = capsys.readouterr().err
    assert "ValueError: broken" in printed
    assert "somebody@example.org" not in printed


def test_every_metric_has_a_sentence_and_no_label_that_grows() -> None:
    """Org units and leads are never labels."""
    ours = [found for found in REGISTRY.collect() if found.name.startswith("processor_")]
    assert len(ours) >= 15
    for metric in ours:
        assert len(metric.documentation.split()) >= 3
    metrics = [one for one in vars(telemetry).values() if hasattr(one, "_labelnames")]
    assert {label for one in metrics for label in one._labelnames} <= OUR_LABELS


async def test_probes_answer_what_they_are_told() -> None:
    """Healthy and not ready is what a worker is while Postgres is away."""
    port = free_port()
    async with telemetry.serving(port, list, lambda: ["postgres does not answer"]):
        assert await http_get(port, "/healthz") == (200, "ok\n")
        assert await http_get(port, "/readyz") == (503, "postgres does not answer\n")
        status, body = await http_get(port, "/metrics?name[]=x")
        assert (status, "processor_rules_revision" in body) == (200, True)
        assert (await http_get(port, "/"))[0] == 404
    assert (await http_get(port, "/healthz"))[0] == 0


async def test_a_port_that_is_taken_refuses_the_start() -> None:
    """The line names the variable."""
    port = free_port()
    async with telemetry.serving(port, list, list):
        with pytest.raises(StartRefused, match=f"cannot listen on METRICS_PORT {port}"):
            async with telemetry.serving(port, list, list):
                pass


async def test_without_a_port_nothing_is_served() -> None:
    """Metrics are off unless asked for."""
    async with telemetry.serving(None, list, list):
        pass
