"""Alert rules: each asks for what is declared, says what to do, and is tried on series that fire it and ones that do not."""

import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from tests.unit.promql import PROMETHEUS, SAMPLES, Wrong, labels_of

DEPLOY = Path(__file__).parents[2] / "deploy"
GROUPS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
TRIED = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yaml").read_text())["tests"]


def runbook() -> list[str]:
    """The headings under ``## Alerts``."""
    text = (DEPLOY / "RUNBOOK.md").read_text()
    (chapter,) = re.findall(r"^## Alerts\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^### (.+)$", chapter, re.MULTILINE)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_asks_for_what_is_declared_and_tells_what_it_knows(name: str) -> None:
    """Its sentences name no label that its expression does not give."""
    rule = RULES[name]
    known = labels_of(rule["expr"])
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert told <= known


@pytest.mark.parametrize("name", RULES)
def test_an_alert_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    """The section of the runbook is named like the alert."""
    rule = RULES[name]
    assert rule["labels"].keys() == {"severity", "service"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{name.lower()}"
    assert rule["annotations"]["description"].endswith(".")


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    """In the order of the rules."""
    assert runbook() == list(RULES)


def test_each_alert_is_tried_on_series_that_fire_it_and_on_ones_that_do_not() -> None:
    """`make alerts` runs them; here is only whether all are there."""
    wanted = {(name, fires) for name in RULES for fires in (True, False)}
    assert {case_of(case) for case in TRIED} == wanted
    assert len(TRIED) == len(wanted)


def case_of(case: dict[str, Any]) -> tuple[str, bool]:
    """The alert that a case asks for, and whether it expects it to fire; silent is what has never fired."""
    name, _, expectation = case["name"].partition(" ")
    (asked,) = case["promql_expr_test"]
    fires = asked["exp_samples"] != []
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    assert asked["expr"] == f"count({firing if fires else f'last_over_time({firing}[2d])'})"
    assert expectation == ("fires" if fires else "stays silent")
    return name, fires


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case["name"])
def test_the_series_that_alerts_are_tried_on_have_the_labels_that_are_declared(
    case: dict[str, Any],
) -> None:
    """All of them, so that nothing fires that could never be."""
    for given in case["input_series"]:
        series = promql.parse(given["series"])
        assert isinstance(series, promql.VectorSelector)
        known = {**SAMPLES, **PROMETHEUS}[series.name or ""]
        assert {matcher.name for matcher in series.matchers.matchers} == known, given["series"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sum(rate(processor_event_total[5m]))", "not declared"),
        ("sum(rate(processor_events[5m]))", "not declared"),
        ("sum(processor_events_total)", "only grows"),
        ("rate(processor_lag_records[5m])", "rate of"),
        ("deriv(processor_events_total[5m])", "deriv of"),
        ('processor_lag_records{lead="x"}', "no label"),
        ("sum by (topic) (processor_waiting)", "group by"),
        ("histogram_quantile(0.9, sum(rate(processor_batch_events_bucket[5m])))", "needs le"),
        ("sum by (topic) (processor_lag_records) / sum(processor_lag_records)", "never match"),
        ("sum(processor_lag_records) > on (topic) sum(processor_waiting)", "match on"),
        ("processor_batch_events > 5", "not declared"),
    ],
)
def test_an_expression_that_asks_for_what_is_not_there_is_found(text: str, why: str) -> None:
    """So is one that is no PromQL."""
    with pytest.raises(Wrong, match=why):
        labels_of(text)
    with pytest.raises(ValueError, match="paren"):
        labels_of(f"({text}")
