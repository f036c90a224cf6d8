"""Logs in one format, probes that answer, metrics that say what they mean."""

import json
import logging
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from processor import telemetry
from processor.embedded.journal import free_port
from processor.failures import StartRefused, Stopped
from tests.declared import declared
from tests.harness_worker import http_get

OUR_LABELS = {
    "topic", "partition", "reason", "kind", "stage", "dependency", "route", "method", "status", "version",
}  # fmt: skip
README = Path(__file__).parents[2] / "README.md"


pytestmark = pytest.mark.usefixtures("own_logging")


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


def test_a_failure_that_faust_logs_is_told_by_who_runs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A defect that it logs stays, and so does a failure that nobody else has heard of."""
    telemetry.configure_logging("json")
    stopped = Stopped("an operator's matter")
    logging.getLogger("faust.worker").error("Crashed", exc_info=stopped)
    logging.getLogger("mode.services").error("Crashed", exc_info=ValueError("broken"))
    logging.getLogger("asyncio").error("Lost", exc_info=stopped)
    told = [json.loads(line)["exception"] for line in capsys.readouterr().err.splitlines()]
    assert len(told) == 2
    assert "ValueError: broken" in told[0]
    assert "Stopped: an operator's matter" in told[1]


def test_the_console_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """They hold payloads."""
    telemetry.configure_logging("console")
    fail("broken")
    printed = capsys.readouterr().err
    assert "ValueError: broken" in printed
    assert "somebody@example.org" not in printed


def test_every_metric_has_a_sentence_and_no_label_that_grows() -> None:
    """Org units and leads are never labels; and none is declared elsewhere."""
    ours = declared()
    assert len(ours) >= 15
    for metric in ours.values():
        assert len(metric.sentence.split()) >= 3
        assert metric.sentence.endswith(".")
    assert {label for metric in ours.values() for label in metric.labels} <= OUR_LABELS
    assert {found.name for found in REGISTRY.collect() if found.name.startswith("processor_")} == {
        *ours
    }


def test_the_readme_describes_every_metric_as_it_is_declared() -> None:
    """Its table is made of the declarations, in their order."""
    wanted = [f"| `{one.shown}` | {one.kind} | {one.sentence} |" for one in declared().values()]
    text = README.read_text()
    section = text[text.index("## Metrics") :].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == wanted, "\n".join(wanted)


def test_series_whose_labels_are_known_are_there_before_anything_happens() -> None:
    """Else the first dead letter of a stage would be no increase."""
    for name, labels in (
        ("processor_events_total", {"reason": "inorganic_grouped"}),
        ("processor_dead_letters_total", {"stage": "publish"}),
        ("processor_waiting", {"dependency": "kafka"}),
    ):
        assert REGISTRY.get_sample_value(name, labels) is not None


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
