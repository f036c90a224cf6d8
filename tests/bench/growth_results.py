"""What the series say: a table each, JSON, and a chart of small multiples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.growth_rules import Cost, Finding
from tests.bench.growth_runs import Measured
from tests.bench.growth_series import Series

PARTS = ("worker", "kafka", "redis", "postgres")


def finding(series: Series, points: Sequence[Measured]) -> Finding:
    """Of the CPU of all parts."""
    return series.rule.judge([Cost(point.x, point.micros) for point in points])


def slowed(points: Sequence[Measured]) -> float:
    """By what factor fewer events a second are done at the slowest point than at the first."""
    return round(points[0].events_s / min(point.events_s for point in points), 2)


def faults(series: Series, points: Sequence[Measured]) -> Sequence[str]:
    """What is not as it must be."""
    found = []
    if wrong := sum(point.wrong for point in points):
        found.append(f"{wrong} rows or messages are wrong")
    if len(points) > 1 and not finding(series, points).holds:
        found.append("CPU grows faster than it must")
    if series.rule.kind == "flat" and slowed(points) > series.slower:
        found.append("throughput falls more than it must")
    return found


def table(series: Series, points: Sequence[Measured]) -> str:
    """Markdown, and what is found."""
    head = [series.name, "events/s", *(f"{part}, µs" for part in PARTS), "all, µs"]
    head += ["× first", "batch", "built", "late", "memory, MB", "wrong"]
    lines = [head, ["---"] * len(head), *(_row(point, points[0]) for point in points)]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {series.name}: {series.about}\n\n{rows}\n\n{said(series, points)}\n"


def said(series: Series, points: Sequence[Measured]) -> str:
    """One line: what must be, what is."""
    told = faults(series, points)
    verdict = "; ".join(told).upper() if told else "as it must be"
    if len(points) < 2:
        return f"Must be {series.rule}. One point."
    return f"Must be {series.rule}; it is {finding(series, points).factor:g} ×: {verdict}."


def write(
    folder: Path, machine: str, results: Mapping[str, tuple[Series, Sequence[Measured]]]
) -> None:
    """`growth.json`, with what earlier runs found of other series."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "growth.json"
    held = json.loads(path.read_text())["series"] if path.exists() else {}
    for name, (series, points) in results.items():
        held[name] = {"said": said(series, points), "points": [asdict(point) for point in points]}
    path.write_text(json.dumps({"machine": machine, "series": held}, indent=2))


def read(folder: Path) -> Mapping[str, Sequence[Measured]]:
    """The points of every series that was ever run."""
    held = json.loads((folder / "growth.json").read_text())["series"]
    return {name: [Measured(**one) for one in series["points"]] for name, series in held.items()}


def _row(point: Measured, first: Measured) -> list[str]:
    return [
        point.label,
        f"{point.events_s:,.0f}",
        *(f"{point.cpu[part]:.1f}" for part in PARTS),
        f"{point.micros:.1f}",
        f"{point.micros / first.micros:.2f}",
        f"{point.batch:,.0f}",
        f"{point.rebuilt:.2f}",
        f"{point.late:.2f}",
        f"{point.memory_mb}",
        f"{point.wrong}",
    ]
