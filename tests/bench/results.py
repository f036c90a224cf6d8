"""What the runs say together: medians, ratios to the floor of the same round, a table, a chart and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from tests.bench.runs import Result

Round = Mapping[str, Result]
"""By contender."""
PARTS = ("worker", "kafka", "redis", "postgres")
COLOURS = ("#4c72b0", "#dd8452", "#c44e52", "#55a868")
_BAR, _GAP, _LEFT, _WIDTH = 26, 12, 130, 560


def ratios(rounds: Sequence[Round], name: str) -> list[float]:
    """Of throughput to that of the floor, in each round."""
    return [one[name].events_s / one["floor"].events_s for one in rounds]


def table(rounds: Sequence[Round]) -> str:
    """Markdown."""
    head = [
        "contender",
        "events/s",
        "× floor [range]",
        *(f"{part}, µs" for part in PARTS),
        "all, µs",
    ]
    lines = [head, ["---"] * len(head)]
    lines[0] += ["memory, MB", "first output, s", "wrong"]
    lines[1] += ["---"] * 3
    lines += [_row(rounds, name) for name in rounds[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(folder: Path, machine: str, rounds: Sequence[Round]) -> None:
    """`bench.json` with every run, and `bench.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [{name: asdict(result) for name, result in one.items()} for one in rounds]
    (folder / "bench.json").write_text(json.dumps({"machine": machine, "rounds": told}, indent=2))
    (folder / "bench.svg").write_text(chart(rounds))


def chart(rounds: Sequence[Round]) -> str:
    """CPU of an event by part, a bar for each contender, with its throughput beside it."""
    cpu = {name: [_cpu(rounds, name, part) for part in PARTS] for name in rounds[0]}
    scale = _WIDTH / max(sum(parts) for parts in cpu.values())
    body = [_legend()]
    for place, (name, parts) in enumerate(cpu.items(), 1):
        top, at = place * (_BAR + _GAP), float(_LEFT)
        body.append(_text(0, top, name))
        for micros, colour in zip(parts, COLOURS, strict=True):
            width = micros * scale
            body.append(
                f'<rect x="{at:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
            )
            at += width
        events_s = median(one[name].events_s for one in rounds)
        body.append(_text(at + 8, top, f"{sum(parts):.0f} µs, {events_s:,.0f} events/s"))
    height = (len(cpu) + 1) * (_BAR + _GAP)
    size = f'width="{_LEFT + _WIDTH + 200}" height="{height}"'
    style = 'font-family="sans-serif" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _legend() -> str:
    marks = zip(PARTS, COLOURS, range(_LEFT, _LEFT + 500, 110), strict=False)
    return "\n".join(
        f'<rect x="{x}" y="4" width="12" height="12" fill="{colour}"/>' + _text(x + 18, -4, part)
        for part, colour, x in marks
    )


def _text(x: float, top: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{top + _BAR - 8}">{text}</text>'


def _row(rounds: Sequence[Round], name: str) -> list[str]:
    runs, compared = [one[name] for one in rounds], ratios(rounds, name)
    cpu = [_cpu(rounds, name, part) for part in PARTS]
    return [
        name,
        f"{median(run.events_s for run in runs):,.0f}",
        f"{median(compared):.2f} [{min(compared):.2f}–{max(compared):.2f}]",
        *(f"{micros:.1f}" for micros in cpu),
        f"{sum(cpu):.1f}",
        f"{median(run.memory_mb for run in runs):.0f}",
        f"{median(run.first_output_s for run in runs):.1f}",
        f"{sum(run.wrong for run in runs)}",
    ]


def _cpu(rounds: Sequence[Round], name: str, part: str) -> float:
    return median(one[name].cpu[part] for one in rounds)
