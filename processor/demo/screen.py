"""The live screen, for a terminal of 80 × 24 or more; it is drawn as a whole, so nothing flickers."""

import asyncio
from collections.abc import Iterable
from time import monotonic

from rich.bar import Bar
from rich.box import ROUNDED
from rich.console import Console, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from processor.demo import steps
from processor.demo.output import Unread, read
from processor.demo.scene import REASON_NAMES, Scene
from processor.demo.seen import REASONS, Dead, Merged, Seen
from processor.pure.shown import shown

FRAME_S = 0.25
BLOCKS = "▁▂▃▄▅▆▇█"
COLOURS = {
    None: "green",
    "inorganic": "red",
    "inorganic_grouped": "yellow",
    "metadata_filter": "magenta",
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BORDERS = 2
_TOP, _MIDDLE, _BOTTOM, _ASK = 3, 5 + _BORDERS, 2 + _BORDERS, 3
_STARTING = len(steps.ALL) + _BORDERS


async def show(scene: Scene) -> None:
    """Draws until it is cancelled, then gives the terminal back as it was; raises `Unread`."""
    console = Console()
    with read(), Live(console=console, screen=True, auto_refresh=False) as live:
        while console.file.isatty():  # Rich writes nothing to what is no terminal any more
            live.update(draw(scene, monotonic(), console.size.height), refresh=True)
            await asyncio.sleep(FRAME_S)
    raise Unread


def draw(scene: Scene, now: float, height: int) -> RenderableType:
    """The whole screen, `height` lines of it."""
    playing = scene.playing_since is not None
    middle = _MIDDLE if playing else _STARTING
    rows = max(height - _TOP - middle - _BOTTOM - _ASK, _BORDERS + 2)
    layout = Layout()
    layout.split_column(
        Layout(_header(scene), size=_TOP),
        _beside(
            _panel("traffic", _traffic(scene, now))
            if playing
            else _panel("start", _progress(scene)),
            _panel("verdicts", _verdicts(scene.seen)),
            middle,
        ),
        Layout(_panel("last suppressed", _suppressed(scene.seen, rows - _BORDERS - 1)), size=rows),
        _merges_and_letters(scene.seen),
        Layout(_lines(Text(f" {command}", "cyan") for command in scene.short_curls), size=_ASK),
    )
    return layout


def _merges_and_letters(seen: Seen) -> Layout:
    merges = _panel(f"merges {seen.merges}  (events moved)", _last(map(_merged, seen.merged)))
    letters = _panel(f"dead letters {seen.letters}", _last(map(_dead, seen.dead)))
    return _beside(merges, letters, _BOTTOM)


def _beside(left: RenderableType, right: RenderableType, size: int) -> Layout:
    row = Layout(size=size)
    row.split_row(Layout(left, ratio=4), Layout(right, ratio=5))
    return row


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content,
        title=f"[bold]{title}",
        title_align="left",
        border_style="bright_black",
        box=ROUNDED,
    )


def _header(scene: Scene) -> RenderableType:
    first = Text.assemble((" processor demo", "bold cyan"), "  ", (scene.phase, "bold"))
    if scene.playing_since is not None:
        limit = "" if scene.seconds is None else f" of {scene.seconds:g}"
        first.append(f"  {scene.played_s:.0f}{limit} s")
    first.append("   Ctrl-C ends it", "bright_black")
    servers = "   ".join(f"{a.name} {a.text}" for a in scene.addresses)
    return _lines([first, Text(f" {servers}"), Text(f" {scene.note}", "bright_black")])


def _progress(scene: Scene) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for name in steps.ALL:
        took = scene.steps.took(name)
        if name in scene.steps.ended:
            table.add_row(Text("✓", "green"), name, Text(f"{took:.1f} s", "bright_black"))
        elif took is None:
            table.add_row("·", Text(name, "bright_black"), "")
        else:
            frame = _SPINNER[int(took * 8) % len(_SPINNER)]
            table.add_row(Text(frame, "cyan"), name, f"{took:.1f} s")
    return table


def _traffic(scene: Scene, now: float) -> RenderableType:
    seen = scene.seen
    rates = seen.rates(now, 18)
    half, most = seen.latency_ms(0.5, 0.99)
    table = _figures()
    table.add_row(Text(f"{rates[-1]}", "bold"), Text("events/s ").append(sparkline(rates), "cyan"))
    table.add_row(f"{seen.lag:,}", "records of lag")
    table.add_row(f"{half:.0f} ms", Text("latency p50 ").append(f"p99 {most:.0f} ms"))
    table.add_row(f"{scene.counts.sent:,}", "sent")
    table.add_row(f"{seen.duplicates:,}", "duplicates")
    return table


def _figures() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", min_width=6, no_wrap=True)
    table.add_column(no_wrap=True)
    return table


def sparkline(rates: Iterable[int]) -> str:
    """A bar for each, the tallest as high as the line."""
    values = list(rates)
    top = max([*values, 1])
    return "".join(" " if not v else BLOCKS[v * (len(BLOCKS) - 1) // top] for v in values)


def _verdicts(seen: Seen) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    for justify in ("left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    total = max(seen.events, 1)
    for reason in REASONS:
        share = seen.reasons[reason] / total
        table.add_row(
            REASON_NAMES[reason],
            f"{seen.reasons[reason]:,}",
            Bar(1, 0, share, color=COLOURS[reason]),
            f"{share:.0%}",
        )
    table.add_row("all", f"{seen.events:,}", "", "", style="bold")
    return table


def _suppressed(seen: Seen, rows: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="bright_black")
    for name in ("at", "lead", "type", "filter"):
        ratio = 1 if name == "filter" else None
        table.add_column(name, no_wrap=True, ratio=ratio, overflow="ellipsis")
    table.add_column("count", justify="right", no_wrap=True)
    for one in list(reversed(seen.suppressed))[:rows]:
        colour = COLOURS[one.reason]
        count = "" if one.events is None else f"{one.events} > {one.threshold}"
        said = _text(one.lead), _text(one.event_type), _text(one.filter, colour)
        table.add_row(one.at, *said, count)
    return table


def _merged(one: Merged) -> Text:
    moved = Text(f" ({one.moved})", "bright_black")
    return Text.assemble(_text(one.lead, "bold"), " ← ", _text(", ".join(one.sources)), moved)


def _dead(one: Dead) -> Text:
    return Text.assemble(_text(one.stage, "red"), " ", _text(one.reason))


def _text(said: str, style: str = "") -> Text:
    """What a producer has said: no markup, and nothing that a terminal would obey."""
    return Text(shown(said), style)


def _last(texts: Iterable[Text]) -> RenderableType:
    """The newest first."""
    return _lines(list(texts)[: -_BOTTOM + _BORDERS - 1 : -1])


def _lines(texts: Iterable[Text]) -> RenderableType:
    """Cut where they are too long."""
    table = Table.grid()
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
        table.add_row(text)
    return table
