"""A chart of small multiples: for each series the CPU of an event by part, its sum, and how many events a second are done.

The axis of µs is logarithmic where the points are further apart than twenty times.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10

from tests.bench.growth_runs import Measured

PARTS = {"worker": "#4c72b0", "kafka": "#dd8452", "redis": "#c44e52", "postgres": "#55a868"}
ALL = "#222222"
_COLUMNS = 3
_PANEL, _HIGH = 400, 300
"""Of a panel with everything around it."""
_LEFT, _TOP, _WIDE, _TALL = 56, 44, 320, 190
"""Where its plot is, and how large."""
_HEAD = 40
_APART = 20.0

Scale = Callable[[float], float]
"""Where on the page, from the top of a plot, so many µs are."""


def chart(results: Mapping[str, Sequence[Measured]], about: Mapping[str, str]) -> str:
    """A panel for each series; `about` says what is varied in each."""
    panels = [
        _moved(_PANEL * (n % _COLUMNS), _HEAD + _HIGH * (n // _COLUMNS), panel)
        for n, panel in enumerate(
            _panel(name, about[name], points) for name, points in results.items()
        )
    ]
    high = _HEAD + _HIGH * ceil(len(results) / _COLUMNS)
    size = f'width="{_PANEL * _COLUMNS}" height="{high}"'
    ground = f'<rect {size} fill="white"/>'
    heading = _text(12, 24, "CPU of an event, µs", size=15)
    body = "\n".join([ground, heading, _legend(), *panels])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n{body}\n</svg>\n'


def _panel(name: str, about: str, points: Sequence[Measured]) -> str:
    scale, marks = _axis(points)
    step = _WIDE / len(points)
    places = [_LEFT + step * (n + 0.5) for n in range(len(points))]
    body = [_text(8, 16, name, size=13), _text(8, 31, about, colour="#777777")]
    for mark in marks:
        y = _TOP + scale(mark)
        body.append(f'<path d="M{_LEFT} {y:.1f}h{_WIDE}" stroke="#dddddd"/>')
        body.append(_text(_LEFT - 6, y + 4, f"{mark:,g}", anchor="end"))
    for part, colour in PARTS.items():
        body.append(_line(places, [scale(point.cpu[part]) for point in points], colour, 1.5))
    body.append(_line(places, [scale(point.micros) for point in points], ALL, 2.5))
    for place, point in zip(places, points, strict=True):
        above = _TOP + scale(point.micros) - 8
        body.append(_text(place, above, f"{point.micros:,.0f}", anchor="middle"))
        body.append(_text(place, _TOP + _TALL + 18, point.label, anchor="middle"))
        said = f"{point.events_s:,.0f}/s"
        body.append(_text(place, _TOP + _TALL + 34, said, anchor="middle", colour="#777777"))
    return "\n".join(body)


def _axis(points: Sequence[Measured]) -> tuple[Scale, Sequence[float]]:
    """The scale, and what is marked on it."""
    highest = 1.15 * max(point.micros for point in points)
    if highest < _APART * min(point.micros for point in points):
        step = _round_step(highest / 4)
        marks = [step * n for n in range(int(highest / step) + 1)]
        return (lambda micros: _TALL * (1 - micros / highest)), marks
    lowest = max(0.5, min(micros for point in points for micros in point.cpu.values()))
    low, high = floor(log10(lowest)), log10(highest * 1.5)

    def scale(micros: float) -> float:
        return _TALL * (1 - (log10(max(micros, 10**low)) - low) / (high - low))

    return scale, [10.0**n for n in range(low, ceil(high))]


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, the next above."""
    power = 10.0 ** floor(log10(rough))
    return next(power * by for by in (1, 2, 5, 10) if power * by >= rough)


def _line(places: Sequence[float], heights: Sequence[float], colour: str, width: float) -> str:
    dots = [(place, _TOP + height) for place, height in zip(places, heights, strict=True)]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    circles = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{width + 0.5}" fill="{colour}"/>' for x, y in dots
    )
    return (
        f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        + circles
    )


def _legend() -> str:
    marks = [*PARTS.items(), ("all", ALL)]
    return "\n".join(
        f'<rect x="{220 + 110 * n}" y="13" width="12" height="12" fill="{colour}"/>'
        + _text(238 + 110 * n, 24, name, size=13)
        for n, (name, colour) in enumerate(marks)
    ) + _text(790, 24, "below each point: events a second", size=13, colour="#777777")


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 11, colour: str = ALL
) -> str:
    look = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    halo = 'stroke="white" stroke-width="3" paint-order="stroke"'  # readable across lines
    return f'<text x="{x:.1f}" y="{y:.1f}" {look} {halo}>{escape(text)}</text>'


def _moved(x: int, y: int, body: str) -> str:
    return f'<g transform="translate({x} {y})">\n{body}\n</g>'
