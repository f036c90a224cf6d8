"""The dashboard: each panel says what it shows, asks for what is declared, and has a place of its own."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.promql import OURS, labels_of, names_in
from tests.unit.test_alerts import RULES

BOARD = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json").read_text()
)
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
UNITS = {"none", "short", "s", "bytes", "percentunit", "eps", "mps", "ops", "reqps", "rowsps"}
"""Of those that Grafana knows."""
TITLED = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def asked(text: str) -> str:
    """A query as Prometheus gets it."""
    return text.replace("$__rate_interval", "1m")


def queries() -> list[str]:
    """Of every panel, and of what is drawn across all of them."""
    targets = [target for panel in PANELS for target in panel["targets"]]
    return [asked(one["expr"]) for one in [*targets, *BOARD["annotations"]["list"]]]


@TITLED
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    """A sentence, and a unit that Grafana knows; it asks the data source that is chosen above."""
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@TITLED
def test_a_panel_asks_for_what_is_declared_of_the_processes_that_are_chosen(
    panel: dict[str, Any],
) -> None:
    """And its legend names labels that its query gives."""
    for target in panel["targets"]:
        known = labels_of(asked(target["expr"]))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known
        chosen = target["expr"].count('{job=~"$job", instance=~"$instance"')
        assert chosen == target["expr"].count("processor_") + target["expr"].count("process_") or (
            "ALERTS" in target["expr"]
        )


def test_what_can_be_chosen_and_what_is_drawn_across_asks_for_what_is_declared() -> None:
    """The variables are named as the queries name them."""
    variables = {one["name"]: one for one in BOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "instance"}
    for name in ("job", "instance"):
        of = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[name]["query"]["query"])
        assert of
        assert of[2] == name
        assert name in labels_of(of[1])
    for drawn in BOARD["annotations"]["list"]:
        labels_of(asked(drawn["expr"]))


def test_no_panel_lies_over_another_and_ids_are_distinct() -> None:
    """Within the 24 columns of Grafana's grid."""
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_every_metric_that_is_declared_is_looked_at() -> None:
    """By a panel or an alert: what nobody looks at is not worth its series."""
    seen = {name for text in queries() for name in names_in(text)}
    seen |= {name for rule in RULES.values() for name in names_in(rule["expr"])}
    assert [metric.name for metric in OURS if not seen & metric.samples.keys()] == []
