"""What the runs say together: medians, ratios within a round, tables, a chart and JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from processor.bench.contenders import Kind
from processor.bench.runs import Result, Round

PARTS = ("worker", "kafka", "redis", "postgres")
COLOURS = ("#4c72b0", "#dd8452", "#c44e52", "#55a868")
_BAR, _GAP, _LEFT, _WIDTH = 26, 12, 130, 560


def ratios(rounds: Sequence[Round], name: str, other: str = "floor") -> list[float]:
    """Of throughput to that of another contender, in each round."""
    return [one[name].events_s / one[other].events_s for one in rounds]


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


def beside(rounds: Sequence[Round]) -> str:
    """Markdown: the worker divided by each rival of the same rounds; the CPU is that of the program, and that of all parts."""
    named = rounds[0].values()
    lines = [["", "events/s [range]", "its CPU", "all CPU"], ["---"] * 4]
    lines += [
        _compared(rounds, own.contender, rival.contender)
        for own in named
        for rival in named
        if (own.kind, rival.kind) == (Kind.OWN.value, Kind.RIVAL.value)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def failed(rounds: Sequence[Round]) -> bool:
    """Whether the floor or the worker did anything wrong; what a rival did is only told."""
    results = [result for one in rounds for result in one.values()]
    return any(result.wrong for result in results if result.kind != Kind.RIVAL.value)


def write(folder: Path, name: str, about: str, rounds: Sequence[Round]) -> None:
    """``NAME.json`` with every run, and ``NAME.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    told = [{name: asdict(result) for name, result in one.items()} for one in rounds]
    (folder / f"{name}.json").write_text(json.dumps({"about": about, "rounds": told}, indent=2))
    (folder / f"{name}.svg").write_text(chart(rounds))


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
    runs = [one[name] for one in rounds]
    cpu = [_cpu(rounds, name, part) for part in PARTS]
    return [
        name,
        f"{median(run.events_s for run in runs):,.0f}",
        _ranged(ratios(rounds, name)),
        *(f"{micros:.1f}" for micros in cpu),
        f"{sum(cpu):.1f}",
        f"{median(run.memory_mb for run in runs):.0f}",
        f"{median(run.first_output_s for run in runs):.1f}",
        f"{sum(run.wrong for run in runs)}",
    ]


def _compared(rounds: Sequence[Round], own: str, rival: str) -> list[str]:
    return [
        f"{own} ÷ {rival}",
        _ranged(ratios(rounds, own, rival)),
        _ranged([one[own].cpu["worker"] / one[rival].cpu["worker"] for one in rounds]),
        _ranged([_all_cpu(one[own]) / _all_cpu(one[rival]) for one in rounds]),
    ]


def _ranged(values: Sequence[float]) -> str:
    return f"{median(values):.2f} [{min(values):.2f}–{max(values):.2f}]"


def _all_cpu(result: Result) -> float:
    return sum(result.cpu[part] for part in PARTS)


def _cpu(rounds: Sequence[Round], name: str, part: str) -> float:
    return median(one[name].cpu[part] for one in rounds)
