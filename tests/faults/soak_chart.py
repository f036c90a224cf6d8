"""A soak as a picture: lag, memory and connections over time, one line for each process, faults as thin marks."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias
from xml.etree.ElementTree import Element, SubElement, tostring

from tests.faults.soak_samples import Sample

WIDTH, HEIGHT, LEFT, GAP = 960, 120, 60, 44
OTHERS = "#b8b8b8"
COLOURS = {"worker-0": "#1f77b4", "api": "#d62728", "engagement": "#2ca02c", "lag": "#1f77b4"}
"""Of what lives through the whole soak; workers that come and go are grey."""

Point: TypeAlias = tuple[float, float]
Lines: TypeAlias = dict[str, list[Point]]


def drawn(samples: Sequence[Sample], faults: Sequence[float]) -> bytes:
    """SVG; `faults` are the minutes at which something was struck."""
    panels: list[tuple[str, Lines]] = [("lag, records", _lag(samples))]
    panels += [
        (name, _of_processes(samples, place))
        for place, name in enumerate(("memory, MB", "to Kafka", "to Redis", "to Postgres"))
    ]
    height = GAP + len(panels) * (HEIGHT + GAP)
    picture = Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH + LEFT + 20} {height}"
    )
    SubElement(picture, "rect", width="100%", height="100%", fill="white")
    for number, (name, lines) in enumerate(panels):
        _panel(picture, GAP + number * (HEIGHT + GAP), name, _Scale(samples, lines), faults)
    return tostring(picture)


class _Scale:
    """From minutes and values to places in a panel."""

    def __init__(self, samples: Sequence[Sample], lines: Lines) -> None:
        self.lines = lines
        self.minutes = samples[-1].minute
        self.most = max([y for line in lines.values() for _, y in line], default=0.0) or 1.0

    def x(self, minute: float) -> float:
        return round(LEFT + WIDTH * minute / self.minutes, 1)

    def y(self, value: float) -> float:
        return round(HEIGHT * (1 - value / self.most), 1)


def _panel(picture: Element, top: int, name: str, scale: _Scale, faults: Iterable[float]) -> None:
    panel = SubElement(picture, "g", transform=f"translate(0 {top})")
    for minute in faults:
        at = str(scale.x(minute))
        SubElement(panel, "line", x1=at, x2=at, y1="0", y2=str(HEIGHT), stroke="#eeddcc")
    for text, x, y in (
        (name, LEFT, -8),
        (f"{scale.most:,.0f}", 4, 10),
        ("0", 4, HEIGHT),
        (f"{scale.minutes:.0f} min", LEFT + WIDTH - 40, HEIGHT + 14),
    ):
        label = SubElement(panel, "text", x=str(x), y=str(y), fill="#333333")
        label.set("font-size", "12")
        label.set("font-family", "sans-serif")
        label.text = text
    for process, points in sorted(scale.lines.items(), key=lambda line: line[0] in COLOURS):
        places = " ".join(f"{scale.x(minute)},{scale.y(value)}" for minute, value in points)
        colour = COLOURS.get(process, OTHERS)
        line = SubElement(panel, "polyline", points=places, fill="none", stroke=colour)
        SubElement(line, "title").text = process


def _lag(samples: Sequence[Sample]) -> Lines:
    return {"lag": [(s.minute, float(s.lag)) for s in samples if s.lag is not None]}


def _of_processes(samples: Sequence[Sample], place: int) -> Lines:
    lines: Lines = {}
    for sample in samples:
        for name, use in sample.uses.items():
            lines.setdefault(name, []).append((sample.minute, float(use[place])))
    return lines
