"""What is left on the terminal when the demo has ended."""

from pathlib import Path

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor.demo.checking import Verdict
from processor.demo.output import say
from processor.demo.scene import REASON_NAMES, Scene
from processor.demo.seen import LATENCY_S, REASONS

SHOWN = 20


def show(scene: Scene, verdict: Verdict, logs: Path) -> None:
    """The account, and the differences where there are any; raises `Unread`."""
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as text:  # else a pipe that nobody reads would be Rich's to judge
        _print(console, scene, verdict, logs)
    say(text.get().rstrip("\n"))


def _print(console: Console, scene: Scene, verdict: Verdict, logs: Path) -> None:
    console.print(_table(scene, verdict))
    for difference in verdict.differences[:SHOWN]:
        console.print(Text(f"  {difference}", "red"))
    count = len(verdict.differences)
    if count > SHOWN:
        console.print(f"  and {count - SHOWN} more")
    if count:
        console.print(Text(f"{count} differences; the logs are in {logs}", "bold red"))
    else:
        said = "every event is accounted for, every message is its row, every verdict agrees"
        console.print(Text(said, "bold green"))


def interrupted(scene: Scene) -> None:
    """A line; nothing was checked.  Raises `Unread`."""
    seen = scene.seen
    say(
        f"stopped while {scene.phase}: {scene.played_s:.0f} s, {scene.counts.sent:,} sent,"
        f" {seen.events:,} verdicts read ({seen.events - seen.reasons[None]:,} suppressed),"
        f" {seen.merges} merges, {seen.letters} dead letters; nothing was checked"
    )


def _table(scene: Scene, verdict: Verdict) -> Table:
    account, recount = verdict.account, verdict.recount
    table = Table(box=ROUNDED, show_header=False, border_style="bright_black")
    table.add_column(justify="left", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="left")
    merges = account.joined + account.no_ops
    events = account.stored + account.duplicates + account.letters
    table.add_row("events sent", f"{events:,}", f"in {scene.played_s:.0f} s")
    table.add_row("  stored", f"{account.stored:,}", "one row and one message each")
    for reason in REASONS:
        table.add_row(f"    {REASON_NAMES[reason]}", f"{account.reasons[reason]:,}", "")
    table.add_row("  duplicates", f"{account.duplicates:,}", "no trace")
    table.add_row("  dead letters", f"{account.letters:,}", "one each")
    joined = f"{account.joined} joined leads, {account.no_ops} had nothing to do"
    table.add_row("merges", f"{merges:,}", joined)
    exact = f"{recount.exact:,} exactly, {recount.plausible:,} of merged leads"
    table.add_row("recounted", f"{recount.checked:,}", exact)
    half, most = scene.seen.latency_ms(0.5, 0.99)
    latest = f"at the median, {most:.0f} ms at 99 %, of the last {LATENCY_S:g} s"
    table.add_row("latency", f"{half:.0f} ms", latest)
    return table
